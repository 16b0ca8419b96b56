"""What a task contributes to the report of a training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor

from zoo.data.split import ImageData
from zoo.sections import DataTable, LineChart, Number, Numbers, Part, Section, Series, Text
from zoo.tasks.metric import Outputs

# Places of the sections of every task.
NUMBERS, CURVES, DETAILS, MISTAKES, LABELS, CALIBRATION, MORE_DATA = (
    100,
    200,
    300,
    350,
    400,
    450,
    500,
)
BALANCE, FIRST_BATCH, ATTENTION, PLAN, COMMAND, NEXT = 600, 650, 360, 800, 850, 150


class Evidence(ABC):
    """A finished training, for what a task stores of it.

    Attributes:
        data: the splits.
        samples: by split the recorded results of its samples, see `BaseTask.sample_results`, with
            their `index` in the split.
        held_out: of training images their positions, logits `[images, classes]` and labels, by
            heads that were fitted without them; None where no head was solved for.
        temperature: of the model file; None for 1.
        similar: by split the images that look like one of `train` by their features: position,
            that of the other, and their cosine.
        growth: numbers of training images, each with accuracies on `val` of heads fitted on them.
    """

    data: ImageData
    samples: Mapping[str, Mapping[str, Tensor]]
    held_out: tuple[Tensor, Tensor, Tensor] | None = None
    temperature: float | None = None
    similar: Mapping[str, Sequence[tuple[int, int, float]]] = MappingProxyType({})
    growth: Sequence[tuple[int, tuple[float, ...]]] = ()

    @abstractmethod
    def name(self, split: str, index: int) -> str:
        """Return the path of an image relative to the data, or its other name."""

    @abstractmethod
    def thumbnail(self, split: str, index: int) -> str | None:
        """Return a small copy of an image, a JPEG file as base64 text; None if it is unreadable."""

    def activation_maps(
        self, split: str, explained: Sequence[tuple[int, int]]
    ) -> list[str | None] | str:
        """Return small copies of images with their activation maps, or why there are none.

        Args:
            split: of the images.
            explained: of each its position in the split, and the number of the output.
        """
        return "there is no network"

    def outputs(
        self, split: str, indices: Sequence[int]
    ) -> Iterator[tuple[int, Tensor, Tensor, Tensor]]:
        """Yield position, pixels, main output and target of samples, on the CPU.

        Pixels are those of the network's input, `[3, height, width]` uint8. Unreadable images are
        left out.

        Args:
            split: of the samples.
            indices: positions in the split.
        """
        yield from ()


@dataclass(frozen=True)
class RunResults:
    """What a run folder stores of a training, for its report.

    Args:
        folder: the run folder.
        record: the content of `run.json`.
        history: the rows of `history.csv` by column.
        results: of `BaseTask.report_data`; empty for a run without.
    """

    folder: Path
    record: Mapping[str, Any]
    history: Sequence[Mapping[str, str]] = ()
    results: Mapping[str, Any] = field(default_factory=dict)


class ReportingTask:
    """The part of a task that contributes to the report of a training.

    Attributes:
        class_labels: how reports name the metrics of a class, by their keys in `per_class`.
    """

    name: str
    columns: tuple[str, ...]
    labels: Mapping[str, str]
    class_labels: Mapping[str, str] = MappingProxyType({})

    def sample_results(self, outputs: Outputs, targets: Tensor) -> dict[str, Tensor]:
        """Return results of each sample of a batch to record, `[samples, ...]` by name.

        Called with every batch of an evaluation. They are in memory for up to
        `SampleResults.LIMIT` samples of a split, so a few numbers each; empty to record nothing.

        Args:
            outputs: of the network.
            targets: as collated.
        """
        return {}

    def right_samples(self, run: RunResults, split: str) -> Mapping[str, bool]:
        """Return of recorded samples, by name, whether the prediction is right.

        Empty for a task whose predictions are not right or wrong.
        """
        return {}

    def temperature(self, logits: Tensor, labels: Tensor) -> float | None:
        """Return what to divide logits by for probabilities that agree with accuracy; None for 1.

        Args:
            logits: `[samples, classes]`, of training samples by heads that were fitted without
                them.
            labels: `[samples]`.
        """
        return None

    def explained_outputs(self, outputs: Outputs) -> Tensor | None:
        """Return which output of each sample an activation map explains, `[samples]` int64.

        None for a task that has no maps: the outputs are not `[samples, outputs]`, or show
        positions themselves.
        """
        return None

    def report_data(self, evidence: Evidence) -> dict[str, Any]:
        """Return what `report_sections` needs beside `run.json`, as data for JSON.

        Called once after a training, when images can still be read.
        """
        return {}

    def report_sections(self, run: RunResults) -> Iterator[Section]:
        """Yield the sections of a report; by default all metrics, and their curves.

        Called after a training and by `zoo report`, without the images. `run.results` is empty for
        a run of an earlier zoo, and for one whose results could not be stored.
        """
        yield Section("Results", tuple(metric_parts(run, self)), NUMBERS)
        if curves := self.learning_curves(run):
            yield Section("Learning curves", curves, CURVES)

    def split_numbers(self, split: str, values: Mapping[str, Any]) -> tuple[Number, ...]:
        """Return the metrics of a split for the report, and for the comparison of several runs.

        Args:
            split: its name, for the labels.
            values: of `run.json`.
        """
        further = [
            name
            for name, value in values.items()
            if isinstance(value, (int, float)) and name not in self.columns
        ]
        return tuple(
            Number(f"{name}, {split}", _text(values[name]))
            for name in (*self.columns, *further)
            if name in values
        )

    def learning_curves(self, run: RunResults) -> tuple[Part, ...]:
        """Return charts of the losses and of each metric by epoch; none for a single epoch."""
        return learning_curves(run, self.labels)

    def summary_lines(self, run: RunResults) -> Iterator[tuple[str, str]]:
        """Yield a label of up to five letters and a text, for the terminal after a training.

        Where the network fails and what to try next, the most important first; the metrics are
        printed before. Those that do not fit into 24 lines are left out.
        """
        yield from ()


def metric_parts(run: RunResults, task: ReportingTask) -> Iterator[Part]:
    """Yield the metrics of each split as numbers, and tables of nested ones."""
    metrics = run.record["metrics"]
    if not metrics:
        yield Text("There was no validation split, so nothing was measured.")
    for split, values in metrics.items():
        yield Numbers(task.split_numbers(split, values))
        for name, rows in values.items():
            if (
                isinstance(rows, Mapping)
                and rows
                and all(isinstance(r, Mapping) for r in rows.values())
            ):
                yield _nested_table(f"{name.replace('_', ' ')}, {split}", rows)


def _nested_table(caption: str, rows: Mapping[str, Mapping[str, Any]]) -> DataTable:
    names = tuple(dict.fromkeys(name for row in rows.values() for name in row))
    cells = tuple((key, *(_text(row.get(name)) for name in names)) for key, row in rows.items())
    return DataTable(("", *names), cells, names, caption)


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def learning_curves(
    run: RunResults, labels: Mapping[str, str], percent: Sequence[str] = ()
) -> tuple[Part, ...]:
    """Return a chart of the losses by epoch, and one of each further metric with a label.

    Args:
        run: of the training; fewer than two epochs have no curves.
        labels: by name of each metric.
        percent: names of metrics that are fractions.
    """
    rows = run.history
    if len(rows) < 2:
        return ()

    def line(name: str, column: str) -> Series | None:
        points = [
            (float(number), float(row[column]))
            for number, row in enumerate(rows, 1)
            if row.get(column) not in (None, "")
        ]
        return Series(name, tuple(points)) if points else None

    losses = [line("training", "train_loss"), line("validation", "val_loss")]
    drawn = tuple(each for each in losses if each)
    charts: list[Part] = [LineChart("Loss by epoch", "epoch", "loss", drawn)] if drawn else []
    for name, label in labels.items():
        series = line("validation", f"val_{name}") if name != "loss" else None
        if series:
            title = f"Validation {label} by epoch"
            charts.append(LineChart(title, "epoch", label, (series,), percent=name in percent))
    return tuple(charts)
