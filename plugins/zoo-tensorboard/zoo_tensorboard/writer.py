"""The log of one training: scalars, images and text for each event."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import zoo
from zoo_tensorboard.event_file import EventFile
from zoo_tensorboard.images import draw_batch, draw_confusion

FOLDER = "tensorboard"


class TrainingWriter:
    """Writes a training to `tensorboard/` in its run folder.

    Steps are epochs, counted from 1 over all phases; 0 is before training. A resumed training goes
    on in another file, created with the first record as any.

    Args:
        event: of the start of the training.

    Raises:
        OSError: from every other method; the file cannot be written.
    """

    def __init__(self, event: zoo.FitStarted) -> None:
        self.plan = event.plan
        self.file = EventFile(Path(event.folder) / FOLDER)
        self.epochs = self.earlier_epochs = event.earlier_epochs
        self._begun = False

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            if self.earlier_epochs:
                self.file.discard_steps(self.earlier_epochs + 1)
            self.file.text("plan", plan_table(self.plan), 0)

    def first_batch(self, event: zoo.FirstBatchRead) -> None:
        """Write the images of the first training batch."""
        self._begin()
        names = [event.classes[label] for label in event.labels]
        self.file.image("train/first_batch", draw_batch(event.images, names), 0)

    def epoch(self, event: zoo.EpochEnded) -> None:
        """Write the scalars of an epoch."""
        self._begin()
        self.epochs += 1
        values = {"train/loss": event.train_loss, "train/lr": event.lr}
        values |= {f"val/{name}": value for name, value in _scalars(event.metrics)}
        self.file.scalars(values, self.epochs)

    def end(self, event: zoo.FitEnded) -> None:
        """Write the metrics of the best epoch, and close the file."""
        try:
            for split, metrics in event.metrics.items():
                values = {f"final_{split}/{name}": value for name, value in _scalars(metrics)}
                self.file.scalars(values, self.epochs)
                if (table := metrics.get("confusion")) is not None:
                    image = draw_confusion(table, self.plan["classes"])
                    self.file.image(f"confusion/{split}", image, self.epochs)
        finally:
            self.file.close()

    def abort(self) -> None:
        """Close the file, or delete it if no epoch has ended, so that the run folder is empty."""
        if self.epochs > self.earlier_epochs:
            self.file.close()
        else:
            self.file.discard()


def _scalars(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Yield the scalar metrics: those of `history.csv`, and at the end those of a split."""
    for name, value in metrics.items():
        if isinstance(value, (int, float)) and name != "images":
            yield name, float(value)


def plan_table(plan: Mapping[str, Any]) -> str:
    """Return a plan as a Markdown table: each value with its reason."""
    reasons = plan.get("reasons", {})
    rows = ["| | value | reason |", "|---|---|---|"]
    for name, value in _flatten(plan):
        text = value if isinstance(value, str) else json.dumps(value)
        cells = [name, text, reasons.get(name, "")]
        rows.append("| " + " | ".join(map(_cell, cells)) + " |")
    return "\n".join(rows)


def _flatten(plan: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a plan, those of phases under the keys of `reasons`."""
    for name, value in plan.items():
        if name == "phases":
            for number, phase in enumerate(value):
                yield from ((f"phases.{number}.{key}", item) for key, item in phase.items())
        elif name != "reasons":
            yield name, value


def _cell(text: str) -> str:
    """Escape text for a cell of a Markdown table."""
    text = " ".join(text.split())
    for character in "\\`*_[]<>|":
        text = text.replace(character, f"\\{character}")
    return text.replace("\\<", "&lt;").replace("\\>", "&gt;")
