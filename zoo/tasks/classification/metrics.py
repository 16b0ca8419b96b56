"""Metrics of image classification, as sums over images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from zoo.data.schema import Schema
from zoo.tasks.base import Metric, Outputs, UserMetrics
from zoo.tasks.classification.outputs import most_probable
from zoo.tasks.metric import loss_sum
from zoo.tasks.user_functions import call_metrics

# With more classes, the confusion matrix would take more memory than the network.
MAX_CONFUSION_CLASSES = 2000


class ClassificationMetric(Metric):
    """Accuracy, cross-entropy and the confusion matrix of a split.

    Args:
        schema: classes of the outputs.
        device: of logits and labels.
        further: metrics of the user by name, called with all logits and labels of a split on the
            CPU, which are then stored.
    """

    def __init__(
        self, schema: Schema, device: torch.device, further: UserMetrics | None = None
    ) -> None:
        super().__init__()
        self.names, count = schema.classes, len(schema.classes)
        self.further = dict(further or {})

        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.int64, device=device)

        self.sums = {
            "loss": loss_sum(device),
            "images": zeros(count),
            "correct": zeros(count),
            "predicted": zeros(count),
            "in_top5": zeros(),
        }
        if count <= MAX_CONFUSION_CLASSES:
            self.sums["confusion"] = zeros(count**2)
        if self.further:
            self.rows = {"logits": [], "labels": []}

    def update(self, outputs: Outputs, targets: Tensor) -> None:
        """Accumulate a batch.

        Args:
            outputs: logits `[images, classes]`.
            targets: labels `[images]`, int64.
        """
        sums, count = self.sums, len(self.names)
        logits = outputs.main.float()
        loss = cross_entropy(logits, targets, reduction="sum")
        sums["loss"] += loss.to(sums["loss"].device, torch.float64)
        if self.further:
            self.rows["logits"].append(logits.cpu())
            self.rows["labels"].append(targets.cpu())
        top = most_probable(logits, 5)
        predicted = top[:, 0]
        ones = torch.ones_like(targets)
        sums["images"].index_add_(0, targets, ones)
        sums["correct"].index_add_(0, targets, (predicted == targets).long())
        sums["predicted"].index_add_(0, predicted, ones)
        if "confusion" in sums:
            sums["confusion"].index_add_(0, targets * count + predicted, ones)
        sums["in_top5"] += (top == targets[:, None]).any(dim=1).sum()

    def compute(self) -> dict[str, float]:
        """Return `loss` (mean cross-entropy), accuracies in 0..1, `images` and user metrics.

        `balanced_accuracy` is the mean over the classes of the split of their accuracy, as in
        scikit-learn. With fewer than five classes, `top5` is 1.

        Raises:
            UsageError: a metric of the user fails, or returns no finite number.
        """
        sums = self.sums
        images = int(sums["images"].sum())
        count = max(images, 1)
        return self._further() | {
            "loss": sums["loss"].item() / count,
            "top1": int(sums["correct"].sum()) / count,
            "top5": int(sums["in_top5"]) / count,
            "balanced_accuracy": self._balanced_accuracy(),
            "images": images,
        }

    def _balanced_accuracy(self) -> float:
        """Return the mean accuracy of the classes that have images; 0 without images."""
        images, correct = self.sums["images"].cpu(), self.sums["correct"].cpu()
        present = images > 0
        if not bool(present.any()):
            return 0.0
        return float((correct[present].double() / images[present]).mean())

    def _further(self) -> dict[str, float]:
        """Return the metrics of the user."""
        if not self.further or not self.rows["labels"]:
            return {}
        logits, labels = torch.cat(self.rows["logits"]), torch.cat(self.rows["labels"])
        return call_metrics(self.further, logits, labels, "all logits and labels of a split")

    def score(self, values: Mapping[str, float]) -> tuple[float, ...]:
        """Rank by accuracy, then by loss."""
        return values["top1"], -values["loss"]

    def report(self) -> dict[str, Any]:
        """Return all metrics, accuracy per class, and the confusion matrix (row: true class).

        `chance` is the accuracy of the best constant prediction, the most frequent class of the
        split; None without images. `never_predicted` names the classes of the split that no image
        was assigned to. `confusion` is None with more than 2,000 classes.
        """
        images, predicted = self.sums["images"].tolist(), self.sums["predicted"].tolist()
        counts = zip(self.names, images, self.sums["correct"].tolist(), strict=True)
        per_class = {
            name: {"images": count, "top1": correct / count if count else None}
            for name, count, correct in counts
        }
        table = None
        if "confusion" in self.sums:
            count = len(self.names)
            table = self.sums["confusion"].reshape(count, count).tolist()
        total = sum(images)
        return {
            **self.compute(),
            "chance": max(images) / total if total else None,
            "never_predicted": [
                name
                for name, count, times in zip(self.names, images, predicted, strict=True)
                if count and not times
            ],
            "per_class": per_class,
            "confusion": table,
        }
