"""Metrics as sums over images, so that no batch size can change them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class Meter:
    """Counts predictions on the device, and says what they come to.

    Args:
        classes: how many there are.
        device: where logits and labels are.
    """

    def __init__(self, classes: int, device: torch.device) -> None:
        self.classes = classes
        self.confusion = torch.zeros(classes * classes, dtype=torch.int64, device=device)
        self.in_top5 = torch.zeros((), dtype=torch.int64, device=device)
        # MPS has no float64; a sum of losses is then kept on the CPU.
        place = torch.device("cpu") if device.type == "mps" else device
        self.loss = torch.zeros((), dtype=torch.float64, device=place)

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Count a batch.

        Args:
            logits: `[images, classes]`.
            labels: `[images]`, int64.
        """
        logits = logits.float()
        loss = torch.nn.functional.cross_entropy(logits, labels, reduction="sum")
        self.loss += loss.to(self.loss.device, torch.float64)
        pairs = labels * self.classes + logits.argmax(dim=1)
        self.confusion += torch.bincount(pairs, minlength=self.classes**2)
        top = logits.topk(min(5, self.classes), dim=1).indices
        self.in_top5 += (top == labels[:, None]).any(dim=1).sum()

    def summary(self) -> dict[str, float]:
        """Return `loss` (mean cross-entropy), `top1` and `top5` in 0..1, and `images`.

        With fewer than five classes, `top5` counts all of them.
        """
        table = self.confusion.reshape(self.classes, self.classes)
        images = int(table.sum())
        count = max(images, 1)
        return {
            "loss": self.loss.item() / count,
            "top1": int(table.diagonal().sum()) / count,
            "top5": int(self.in_top5) / count,
            "images": images,
        }

    def details(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the summary, accuracy per class, and the confusion matrix (row: true class)."""
        table = self.confusion.reshape(self.classes, self.classes).cpu().tolist()
        per_class = {
            name: {"images": sum(row), "top1": row[i] / sum(row) if sum(row) else None}
            for i, (name, row) in enumerate(zip(names, table, strict=True))
        }
        return {**self.summary(), "per_class": per_class, "confusion": table}
