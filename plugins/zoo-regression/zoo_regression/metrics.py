"""Metrics of image regression, from sums over images."""

from typing import Any

import torch
from torch import Tensor

from zoo.tasks.base import Metric, Outputs, UserMetrics
from zoo.tasks.user_functions import call_metrics
from zoo_regression.data import RegressionSchema

SUMS = ("images", "absolute", "squared", "true", "true_squared")


class RegressionMetric(Metric):
    """Errors in the units of the data, and the mean squared error of standardized targets."""

    def __init__(
        self, schema: RegressionSchema, device: torch.device, further: UserMetrics | None = None
    ) -> None:
        super().__init__()
        self.schema, self.further = schema, further or {}
        where = "cpu" if device.type == "mps" else device  # MPS has no float64
        self.sums = {
            n: torch.zeros(schema.outputs, dtype=torch.float64, device=where) for n in SUMS
        }
        self.rows = {"outputs": [], "targets": []} if self.further else {}

    def update(self, outputs: Outputs, targets: Tensor) -> None:
        """Accumulate `[images, targets]`."""
        found, true = (each.to(self.sums["true"]) for each in (outputs.main, targets))
        error = found - true
        parts = (torch.ones_like(true), error.abs(), error**2, true, true**2)
        for total, part in zip(self.sums.values(), parts, strict=True):
            total += part.sum(dim=0)
        for name, values in zip(self.rows, (found, true), strict=False):
            self.rows[name].append(self.schema.in_units(values).float().cpu())

    def _each(self) -> dict[str, Tensor]:
        """Return the errors of each target; R2 of one that does not vary is 0, or 1 if exact."""
        images, absolute, squared, true, true_squared = self.sums.values()
        images, std = images.clamp(min=1), images.new_tensor(self.schema.std)
        spread = true_squared - true**2 / images
        r2 = torch.where(spread > 1e-12 * true_squared, 1 - squared / spread, squared == 0)
        return {"mae": absolute / images * std, "rmse": (squared / images).sqrt() * std, "r2": r2}

    def compute(self) -> dict[str, float]:
        """Return `loss`, `mae`, `rmse` and `r2`, means over targets, and `images`."""
        images, squared = int(self.sums["images"][0]), self.sums["squared"].mean().item()
        values = {name: each.mean().item() for name, each in self._each().items()}
        if self.further and images:
            values |= call_metrics(self.further, *map(torch.cat, self.rows.values()))
        return {**values, "loss": squared / max(images, 1), "images": images}

    def report(self) -> dict[str, Any]:
        """Return the numbers, and those of each target."""
        rows = {name: each.tolist() for name, each in self._each().items()}
        each = {
            t: {n: row[i] for n, row in rows.items()} for i, t in enumerate(self.schema.targets)
        }
        return {**self.compute(), "per_target": each}
