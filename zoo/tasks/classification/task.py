"""Image classification: one class per image."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Subset, TensorDataset

from zoo.data.exportable import Placement
from zoo.data.images import noise
from zoo.data.schema import Schema
from zoo.data.split import ImageData, Split
from zoo.errors import UsageError
from zoo.options.class_weights import ClassWeights
from zoo.options.columns import Columns
from zoo.sections import Number, Part, Section
from zoo.spec import IMAGE_CLASSIFICATION, Head, Preprocess
from zoo.tasks.base import (
    BaseTask,
    Criterion,
    Direction,
    Evidence,
    LogisticProbe,
    Outputs,
    RunResults,
    SampleTransform,
    SourceImage,
    Table,
    UserMetrics,
)
from zoo.tasks.classification.data.sources import open_data, open_split
from zoo.tasks.classification.evidence import report_data, sample_results
from zoo.tasks.classification.metrics import ClassificationMetric
from zoo.tasks.classification.outputs import (
    check_logits,
    classification_loss,
    most_probable,
    read_output,
)
from zoo.tasks.classification.present import metric_line, metric_table, prediction_lines
from zoo.tasks.classification.report import accuracy_curves, sections, split_numbers
from zoo.tasks.classification.summary import summary_lines
from zoo.tasks.classification.temperature import fit_temperature
from zoo.tasks.weighted_loss import WeightedCrossEntropy, resolve_class_weights


class ImageClassification(BaseTask):
    """One class per image: folders of classes, cross-entropy, accuracy."""

    name = IMAGE_CLASSIFICATION
    columns = ("loss", "top1", "top5", "balanced_accuracy")
    directions: Mapping[str, Direction] = {
        "top1": "max",
        "balanced_accuracy": "max",
        "top5": "max",
        "loss": "min",
    }
    labels: Mapping[str, str] = {"loss": "loss", "top1": "top-1"}
    class_labels: Mapping[str, str] = {"top1": "Recall"}
    reserved = (*columns, "chance", "images", "never_predicted", "per_class", "confusion")
    loss_label = "cross-entropy"
    data_options = ("columns", "group", "group_by")
    decision = "top-1"

    def open_data(
        self,
        source: Any,
        *,
        seed: int = 0,
        val_fraction: float = 0.2,
        classes: int | None = None,
        columns: Columns | None = None,
        group: str | None = None,
        group_by: str | None = None,
    ) -> ImageData:
        """Index images by class; None for the embedded set. See `BaseTask.open_data`."""
        return open_data(
            source,
            seed=seed,
            val_fraction=val_fraction,
            classes=classes,
            columns=columns,
            group=group,
            group_by=group_by,
        )

    def open_split(
        self, source: Any, schema: Schema, split: str | None = None, columns: Columns | None = None
    ) -> Split:
        """Index one split, its classes matched by name. See `BaseTask.open_split`."""
        return open_split(source, schema.classes, split, columns)

    def class_counts(self, split: Split, schema: Schema) -> dict[str, int]:
        """Return the number of images of each class."""
        counts = split.counts(len(schema.classes))
        return dict(zip(schema.classes, counts, strict=True))

    def example_data(self, preprocess: Preprocess, count: int, seed: int) -> ImageData:
        """Return noise labelled with three classes in turn. See `BaseTask.example_data`."""
        images = noise(count, preprocess, seed)
        whole = TensorDataset(images, torch.arange(count) % 3)
        parts = {"train": whole, "val": Subset(whole, range(min(2, count)))}
        return self.open_data(parts, classes=3)

    def read_output(
        self, output: Any, heads: Sequence[Head], training: bool, previous: int | None = None
    ) -> Outputs:
        """Read logits `[images, classes]`. See `BaseTask.read_output`."""
        return read_output(output, heads, training, previous)

    def head_outputs_differ(self, heads: Sequence[Head]) -> str | None:
        """Return the reason for distilled networks, which average their heads in evaluation."""
        if any(head.role == "distill" for head in heads):
            return "the network combines its heads in evaluation"
        return None

    def check_outputs(self, outputs: Outputs) -> None:
        """Refuse probabilities. See `BaseTask.check_outputs`."""
        check_logits(outputs.main)

    def loss(
        self, outputs: Outputs, targets: Tensor, criterion: Criterion | None = None
    ) -> dict[str, Tensor]:
        """Return cross-entropy of the main head, and weighted of every auxiliary head."""
        return classification_loss(outputs, targets, criterion)

    def weighted_loss(
        self, data: ImageData, class_weights: ClassWeights | None, label_smoothing: float
    ) -> WeightedCrossEntropy:
        """Return cross-entropy with class weights and label smoothing."""
        classes, train = data.classes, data.splits["train"]

        def counts() -> tuple[int, ...]:
            if len(train.targets) < len(train):
                hint = "give its Dataset, or the weight of each class"
                raise UsageError("--class-weights balanced: a DataLoader has no class counts", hint)
            return train.counts(len(classes))

        weights = resolve_class_weights(class_weights, classes, counts)
        return WeightedCrossEntropy(weights, label_smoothing)

    def metric(
        self, schema: Schema, device: torch.device, further: UserMetrics | None = None
    ) -> ClassificationMetric:
        """Return a metric of accuracy and cross-entropy."""
        return ClassificationMetric(schema, device, further)

    def probe(self, criterion: Criterion | None) -> LogisticProbe | str:
        """Return logistic regression if the loss is cross-entropy, else the reason against it."""
        if criterion is None:
            return LogisticProbe()
        if isinstance(criterion, WeightedCrossEntropy):
            return LogisticProbe(criterion.weight, criterion.label_smoothing)
        # Not isinstance: a subclass may compute anything.
        if type(criterion) is torch.nn.CrossEntropyLoss and (
            not criterion.label_smoothing
            and criterion.reduction == "mean"
            and criterion.ignore_index < 0
        ):
            return LogisticProbe(criterion.weight)
        return "a custom loss is minimised epoch by epoch"

    def split_targets(self, split: Split, transform: SampleTransform) -> Tensor:
        """Return the labels of a split, `[images]` int64."""
        return torch.tensor(list(split.targets), dtype=torch.int64)

    def predict(
        self,
        outputs: Outputs,
        images: Sequence[SourceImage],
        schema: Schema,
        *,
        top: int = 5,
        out: Path | None = None,
    ) -> list[dict[str, Any]]:
        """Return the `top` most probable classes of each image: `[{class, probability}]`."""
        names, logits = schema.classes, outputs.main.float()
        best = most_probable(logits, top)
        values = logits.softmax(dim=1).gather(1, best)
        pairs = zip(values.tolist(), best.tolist(), strict=True)
        return [
            {
                "predictions": [
                    {"class": names[index], "probability": value}
                    for value, index in zip(values, indices, strict=True)
                ]
            }
            for values, indices in pairs
        ]

    def export_outputs(self, outputs: Outputs, placement: Placement) -> dict[str, Tensor]:
        """Return the probabilities of all classes, `[images, classes]`."""
        return {"probabilities": outputs.main.float().softmax(dim=1)}

    def export_decisions(self, exported: Mapping[str, Tensor]) -> Tensor:
        """Return the most probable class of each image."""
        return exported["probabilities"].argmax(dim=1)

    def prediction_lines(self, answer: Mapping[str, Any]) -> list[str]:
        """Return one line per class."""
        return prediction_lines(answer)

    def metric_line(self, values: Mapping[str, Any], chance: float | None) -> str:
        """Return accuracy and loss as one line."""
        return metric_line(values, chance)

    def metric_table(self, values: Mapping[str, Any]) -> tuple[list[str], Table | None]:
        """Return totals, and a table of classes, with the confusion matrix for a few."""
        return metric_table(values)

    def sample_results(self, outputs: Outputs, targets: Tensor) -> dict[str, Tensor]:
        """Return true class, the most probable classes and probabilities of each image."""
        return sample_results(outputs, targets)

    def explained_outputs(self, outputs: Outputs) -> Tensor:
        """Return the most probable class of each image."""
        return outputs.main.argmax(dim=1)

    def temperature(self, logits: Tensor, labels: Tensor) -> float | None:
        """Return the temperature of the least negative log-likelihood."""
        return fit_temperature(logits, labels)

    def report_data(self, evidence: Evidence) -> dict[str, Any]:
        """Return the results of the samples, and images of the worst mistakes."""
        return report_data(evidence)

    def split_numbers(self, split: str, values: Mapping[str, Any]) -> tuple[Number, ...]:
        """Return the accuracy with its interval, and further metrics."""
        return split_numbers(split, values)

    def right_samples(self, run: RunResults, split: str) -> dict[str, bool]:
        """Return of recorded images, by name, whether the most probable class is the true one."""
        samples = run.results.get("samples", {}).get(split)
        if samples is None:
            return {}
        rows = zip(samples["name"], samples["classes"], samples["true"], strict=True)
        return {name: best[0] == true for name, best, true in rows}

    def learning_curves(self, run: RunResults) -> tuple[Part, ...]:
        """Return charts of loss, accuracy and balanced accuracy by epoch."""
        return accuracy_curves(run)

    def report_sections(self, run: RunResults) -> Iterator[Section]:
        """Yield numbers, curves, confusions, mistakes, calibration and class balance."""
        return sections(run)

    def summary_lines(self, run: RunResults) -> Iterator[tuple[str, str]]:
        """Yield the weakest classes, the most frequent confusions, and what to try next."""
        return summary_lines(run)
