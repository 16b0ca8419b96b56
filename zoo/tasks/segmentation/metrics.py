"""Metrics of semantic segmentation, from one confusion matrix of a whole split."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from zoo.data.schema import Schema
from zoo.tasks.base import Metric, Outputs, UserMetrics
from zoo.tasks.segmentation.schema import IGNORE_INDEX
from zoo.tasks.user_functions import call_metrics


class SegmentationMetric(Metric):
    """Intersection over union, pixel accuracy and cross-entropy of labelled pixels.

    Args:
        schema: whose classes the outputs are.
        device: of logits and masks.
        further: the user's own metrics by name, called with all predicted and all true masks of a
            split, `[images, height, width]` uint8 on the CPU, which they make the metric store.
    """

    def __init__(
        self, schema: Schema, device: torch.device, further: UserMetrics | None = None
    ) -> None:
        super().__init__()
        self.names, count = schema.classes, len(schema.classes)
        self.further = dict(further or {})
        # MPS has no float64.
        exact = torch.device("cpu") if device.type == "mps" else device
        self.sums = {
            "loss": torch.zeros((), dtype=torch.float64, device=exact),
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
        # A batch at a time in int64 would be eight times the masks.
        for logits, mask in zip(outputs.main, targets, strict=True):
            true = mask.long()
            loss = cross_entropy(
                logits.float()[None], true[None], ignore_index=IGNORE_INDEX, reduction="sum"
            )
            sums["loss"] += loss.to(sums["loss"].device, torch.float64)
            predicted = logits.argmax(dim=0)
            # What is ignored has a bin of its own, which is dropped.
            bins = torch.where(true == IGNORE_INDEX, count**2, true * count + predicted)
            sums["confusion"] += bins.flatten().bincount(minlength=count**2 + 1)[:-1]
            if self.further:
                self.rows["predicted"].append(predicted.to("cpu", torch.uint8))
                self.rows["masks"].append(mask.cpu())
        sums["images"] += len(targets)

    def _table(self) -> Tensor:
        """Return the confusion matrix, `[true, predicted]` int64 on the CPU."""
        return self.sums["confusion"].cpu().reshape(len(self.names), len(self.names))

    def _ious(self) -> list[float | None]:
        """Return the IoU of each class; None of those in neither masks nor predictions."""
        table = self._table()
        both = table.diagonal()
        either = table.sum(0) + table.sum(1) - both
        return [
            hits / union if union else None
            for hits, union in zip(both.tolist(), either.tolist(), strict=True)
        ]

    def compute(self) -> dict[str, float]:
        """Return `loss` (mean over labelled pixels), `miou` and `pixel_accuracy`, and `images`.

        `miou` is the mean over the classes that are in the masks or in the predictions.

        Raises:
            UsageError: the user's own metric fails, or gives no number.
        """
        table, values = self._table(), {}
        if self.further and self.rows["masks"]:
            stacked = torch.stack(self.rows["predicted"]), torch.stack(self.rows["masks"])
            takes = "predicted and true masks [images, height, width] uint8 of a split"
            values = call_metrics(self.further, *stacked, takes)
        known = [iou for iou in self._ious() if iou is not None]
        pixels = max(int(table.sum()), 1)
        return values | {
            "loss": self.sums["loss"].item() / pixels,
            "miou": sum(known) / max(len(known), 1),
            "pixel_accuracy": int(table.diagonal().sum()) / pixels,
            "images": int(self.sums["images"]),
        }

    def score(self, values: Mapping[str, float]) -> tuple[float, ...]:
        """Rank by mean IoU, then by loss."""
        return values["miou"], -values["loss"]

    def report(self) -> dict[str, Any]:
        """Return the numbers, and of each class its IoU and its pixels in the masks."""
        counts = self._table().sum(1).tolist()
        rows = zip(self.names, self._ious(), counts, strict=True)
        per_class = {name: {"iou": iou, "pixels": pixels} for name, iou, pixels in rows}
        return {**self.compute(), "per_class": per_class}
