"""The log of one training: what is written of each event."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import zoo
from zoo_tensorboard.events import EventFile
from zoo_tensorboard.pictures import draw_batch, draw_confusion

FOLDER = "tensorboard"


class Board:
    """Writes a training into `tensorboard/` in its run folder.

    Steps are epochs, counted from 1 through all phases; what is there before training is at 0.
    Nothing is made in the run folder until there is something to write.

    Args:
        event: how the training began.

    Raises:
        OSError: from every other method; the system refuses.
    """

    def __init__(self, event: zoo.FitStarted) -> None:
        self.plan = event.plan
        self.file = EventFile(Path(event.folder) / FOLDER)
        self.epochs = 0
        self._begun = False

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self.file.text("plan", plan_table(self.plan), 0)

    def first_batch(self, event: zoo.FirstBatchRead) -> None:
        """Write the first training batch."""
        self._begin()
        names = [event.classes[label] for label in event.labels]
        self.file.image("train/first_batch", draw_batch(event.images, names), 0)

    def epoch(self, event: zoo.EpochEnded) -> None:
        """Write the scalars of an epoch."""
        self._begin()
        self.epochs += 1
        values = {"train/loss": event.train_loss, "train/lr": event.lr}
        values |= {f"val/{name}": value for name, value in _measured(event.metrics)}
        self.file.scalars(values, self.epochs)

    def end(self, event: zoo.FitEnded) -> None:
        """Write what the best epoch comes to, and close."""
        try:
            for split, metrics in event.metrics.items():
                values = {f"final_{split}/{name}": value for name, value in _measured(metrics)}
                self.file.scalars(values, self.epochs)
                if (table := metrics.get("confusion")) is not None:
                    picture = draw_confusion(table, self.plan["classes"])
                    self.file.image(f"confusion/{split}", picture, self.epochs)
        finally:
            self.file.close()

    def give_up(self) -> None:
        """Close; what has no epoch yet is taken away, so that an empty run folder can go too."""
        if self.epochs:
            self.file.close()
        else:
            self.file.discard()


def _measured(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield what is a measure among metrics, as `history.csv` has it."""
    for name, value in metrics.items():
        if isinstance(value, (int, float)) and name != "images":
            yield name, float(value)


def plan_table(plan: Mapping[str, Any]) -> str:
    """Return a plan as a table in Markdown: every value, and why it is what it is."""
    reasons = plan.get("reasons", {})
    rows = ["| | value | why |", "|---|---|---|"]
    for name, value in _flat(plan):
        shown = value if isinstance(value, str) else json.dumps(value, default=dict)
        cells = [name, shown, reasons.get(name, "")]
        rows.append("| " + " | ".join(map(_cell, cells)) + " |")
    return "\n".join(rows)


def _flat(plan: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a plan, those of a phase under the names that its reasons have."""
    for name, value in plan.items():
        if name == "phases":
            for number, phase in enumerate(value):
                yield from ((f"phases.{number}.{key}", item) for key, item in phase.items())
        elif name != "reasons":
            yield name, value


def _cell(text: str) -> str:
    """Return text that cannot break a table, nor be taken for Markdown or HTML."""
    text = " ".join(text.split())
    for character in "\\`*_[]<>|":
        text = text.replace(character, f"\\{character}")
    return text.replace("\\<", "&lt;").replace("\\>", "&gt;")
