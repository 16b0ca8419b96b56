"""Metrics of semantic segmentation, from the confusion matrix of a split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from zoo.data.schema import Schema
from zoo.tasks.base import Metric, Outputs, UserMetrics
from zoo.tasks.metric import loss_sum
from zoo.tasks.segmentation.schema import IGNORE_INDEX
from zoo.tasks.user_functions import call_metrics


class SegmentationMetric(Metric):
    """Intersection over union, pixel accuracy and cross-entropy of labelled pixels.

    Args:
        schema: classes of the outputs.
        device: of logits and masks.
        further: metrics of the user by name, called with all predicted and true masks of a split,
            `[images, height, width]` uint8 on the CPU, which are then stored.
    """

    def __init__(
        self, schema: Schema, device: torch.device, further: UserMetrics | None = None
    ) -> None:
        super().__init__()
        self.names, count = schema.classes, len(schema.classes)
        self.further = dict(further or {})
        self.sums = {
            "loss": loss_sum(device),
            "images": torch.zeros((), dtype=torch.int64, device=device),
            "confusion": torch.zeros(count**2, dtype=torch.int64, device=device),
        }
        if self.further:
            self.rows = {"predicted": [], "masks": []}

    def update(self, outputs: Outputs, targets: Tensor) -> None:
        """Accumulate a batch.

        Args:
            outputs: logits `[images, classes, height, width]`.
            targets: masks `[images, height, width]`, uint8.
        """
        sums, count = self.sums, len(self.names)
        # Image by image: masks in int64 take eight times the memory.
        for logits, mask in zip(outputs.main, targets, strict=True):
            true = mask.long()
            loss = cross_entropy(
                logits.float()[None], true[None], ignore_index=IGNORE_INDEX, reduction="sum"
            )
            sums["loss"] += loss.to(sums["loss"].device, torch.float64)
            predicted = logits.argmax(dim=0)
            # Ignored pixels are counted in an extra bin, which is dropped.
            bins = torch.where(true == IGNORE_INDEX, count**2, true * count + predicted)
            sums["confusion"] += bins.flatten().bincount(minlength=count**2 + 1)[:-1]
            if self.further:
                self.rows["predicted"].append(predicted.to("cpu", torch.uint8))
                self.rows["masks"].append(mask.cpu())
        sums["images"] += len(targets)

    def _confusion(self) -> Tensor:
        """Return the confusion matrix, `[true, predicted]` int64 on the CPU."""
        return self.sums["confusion"].cpu().reshape(len(self.names), len(self.names))

    def _ious(self) -> list[float | None]:
        """Return the IoU of each class; None for a class in neither masks nor predictions."""
        confusion = self._confusion()
        intersection = confusion.diagonal()
        union = confusion.sum(0) + confusion.sum(1) - intersection
        return [
            shared / total if total else None
            for shared, total in zip(intersection.tolist(), union.tolist(), strict=True)
        ]

    def compute(self) -> dict[str, float]:
        """Return `loss` (per labelled pixel), `miou`, `pixel_accuracy`, `images` and user metrics.

        `miou` is the mean over the classes that occur in masks or predictions.

        Raises:
            UsageError: a metric of the user fails, or returns no finite number.
        """
        confusion, values = self._confusion(), {}
        if self.further and self.rows["masks"]:
            stacked = torch.stack(self.rows["predicted"]), torch.stack(self.rows["masks"])
            arguments = "predicted and true masks [images, height, width] uint8 of a split"
            values = call_metrics(self.further, *stacked, arguments)
        ious = [iou for iou in self._ious() if iou is not None]
        pixels = max(int(confusion.sum()), 1)
        return values | {
            "loss": self.sums["loss"].item() / pixels,
            "miou": sum(ious) / max(len(ious), 1),
            "pixel_accuracy": int(confusion.diagonal().sum()) / pixels,
            "images": int(self.sums["images"]),
        }

    def score(self, values: Mapping[str, float]) -> tuple[float, ...]:
        """Rank by mean IoU, then by loss."""
        return values["miou"], -values["loss"]

    def report(self) -> dict[str, Any]:
        """Return all metrics, and the IoU and number of labelled pixels of each class."""
        counts = self._confusion().sum(1).tolist()
        rows = zip(self.names, self._ious(), counts, strict=True)
        per_class = {name: {"iou": iou, "pixels": pixels} for name, iou, pixels in rows}
        return {**self.compute(), "per_class": per_class}
