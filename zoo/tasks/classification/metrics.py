"""Metrics as sums over images, so that no batch size can change them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from zoo.errors import UsageError, one_line

Metrics = Mapping[str, Callable[[Tensor, Tensor], Any]]

# Of more classes, the confusion matrix would take more memory than the network.
MOST_CONFUSED = 2000


class Meter:
    """Counts predictions on the device, and says what they come to.

    Args:
        classes: how many there are.
        device: where logits and labels are.
        metrics: further ones by name, each called with all logits and labels, on the CPU; they
            make the meter keep every logit.
    """

    def __init__(self, classes: int, device: torch.device, metrics: Metrics | None = None) -> None:
        def zeros(*shape: int) -> Tensor:
            return torch.zeros(shape, dtype=torch.int64, device=device)

        self.classes = classes
        self.metrics = dict(metrics or {})
        self.kept: list[tuple[Tensor, Tensor]] = []
        self.images, self.right, self.in_top5 = zeros(classes), zeros(classes), zeros()
        self.confusion = zeros(classes**2) if classes <= MOST_CONFUSED else None
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
        loss = cross_entropy(logits, labels, reduction="sum")
        self.loss += loss.to(self.loss.device, torch.float64)
        if self.metrics:
            self.kept.append((logits.cpu(), labels.cpu()))
        said = logits.argmax(dim=1)
        ones = torch.ones_like(labels)
        self.images.index_add_(0, labels, ones)
        self.right.index_add_(0, labels, (said == labels).long())
        if self.confusion is not None:
            self.confusion.index_add_(0, labels * self.classes + said, ones)
        top = logits.topk(min(5, self.classes), dim=1).indices
        self.in_top5 += (top == labels[:, None]).any(dim=1).sum()

    def summary(self) -> dict[str, float]:
        """Return `loss` (mean cross-entropy), `top1` and `top5` in 0..1, `images`, and the rest.

        With fewer than five classes, `top5` counts all of them.

        Raises:
            UsageError: a metric that the user gave fails, or gives no number.
        """
        images = int(self.images.sum())
        count = max(images, 1)
        return self._further() | {
            "loss": self.loss.item() / count,
            "top1": int(self.right.sum()) / count,
            "top5": int(self.in_top5) / count,
            "images": images,
        }

    def _further(self) -> dict[str, float]:
        """Return what the user's own metrics say."""
        if not self.kept:
            return {}
        logits, labels = (torch.cat(parts) for parts in zip(*self.kept, strict=True))
        said = {}
        for name, metric in self.metrics.items():
            try:
                said[name] = float(metric(logits, labels))
            except Exception as error:  # their code can raise anything
                hint = "it is called with all logits and labels of a split"
                raise UsageError(f"the metric {name} fails: {one_line(error)}", hint) from error
            if not math.isfinite(said[name]):
                raise UsageError(f"the metric {name} is {said[name]}", "it must be a number")
        return said

    def details(self, names: Sequence[str]) -> dict[str, Any]:
        """Return the summary, accuracy per class, and the confusion matrix (row: true class).

        With more than 2,000 classes, `confusion` is None.
        """
        counts = zip(names, self.images.tolist(), self.right.tolist(), strict=True)
        per_class = {
            name: {"images": images, "top1": right / images if images else None}
            for name, images, right in counts
        }
        table = None
        if self.confusion is not None:
            table = self.confusion.reshape(self.classes, self.classes).tolist()
        return {**self.summary(), "per_class": per_class, "confusion": table}
