"""The task: loss, metrics in the units of the data, and predictions."""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import mse_loss
from torch.utils.data import TensorDataset

import zoo
from zoo.data.images import noise
from zoo.data.split import ImageData, Split
from zoo.data.targets import map_targets, open_one
from zoo.options.columns import Columns
from zoo.tasks.base import BaseTask, Criterion, Metric, Outputs, SourceImage, UserMetrics
from zoo.tasks.user_functions import call_loss, call_metrics
from zoo_regression.data import RegressionSchema, open_data


class RegressionMetric(Metric):
    """Errors in the units of the data, and the mean squared error of standardized targets."""

    def __init__(
        self, schema: RegressionSchema, device: torch.device, further: UserMetrics | None = None
    ) -> None:
        super().__init__()
        self.schema, self.further = schema, further or {}
        where = "cpu" if device.type == "mps" else device  # MPS has no float64
        zeros = torch.zeros(schema.outputs, dtype=torch.float64, device=where)
        names = ("images", "absolute", "squared", "true", "true_squared")
        self.sums = {name: zeros.clone() for name in names}
        self.rows = {"outputs": [], "targets": []} if self.further else {}

    def update(self, outputs: Outputs, targets: torch.Tensor) -> None:
        """Accumulate `[images, targets]`."""
        predicted, true = (each.to(self.sums["true"]) for each in (outputs.main, targets))
        error = predicted - true
        parts = (torch.ones_like(true), error.abs(), error**2, true, true**2)
        for total, part in zip(self.sums.values(), parts, strict=True):
            total += part.sum(dim=0)
        for name, values in zip(self.rows, (predicted, true), strict=False):
            self.rows[name].append(self.schema.in_units(values).float().cpu())

    def _per_target(self) -> dict[str, torch.Tensor]:
        """Return the errors `[targets]`; R2 of constant targets is 0, or 1 without any error."""
        images, absolute, squared, true, true_squared = self.sums.values()
        images, std = images.clamp(min=1), images.new_tensor(self.schema.std)
        spread = true_squared - true**2 / images
        r2 = torch.where(spread > 1e-12 * true_squared, 1 - squared / spread, squared == 0)
        return {"mae": absolute / images * std, "rmse": (squared / images).sqrt() * std, "r2": r2}

    def compute(self) -> dict[str, float]:
        """Return `loss`, `mae`, `rmse` and `r2`, means over targets, and `images`."""
        images, squared = int(self.sums["images"][0]), self.sums["squared"].mean().item()
        values = {name: each.mean().item() for name, each in self._per_target().items()}
        if self.further and images:
            values |= call_metrics(self.further, *map(torch.cat, self.rows.values()))
        return {**values, "loss": squared / max(images, 1), "images": images}

    def report(self) -> dict[str, Any]:
        """Return the numbers, and those of each target."""
        rows = {name: each.tolist() for name, each in self._per_target().items()}
        each = {t: {n: r[i] for n, r in rows.items()} for i, t in enumerate(self.schema.targets)}
        return {**self.compute(), "per_target": each}


class ImageRegression(BaseTask):
    """One or several numbers for each image."""

    name = "image-regression"
    columns = ("loss", "mae", "rmse", "r2")
    directions = {"loss": "min", "mae": "min", "rmse": "min", "r2": "max"}  # noqa: RUF012
    labels = {"mae": "MAE", "r2": "R2"}  # noqa: RUF012
    data_options = ("columns",)
    reserved = (*columns, "images", "per_target")
    loss_label = "mean squared error"
    schema_type = RegressionSchema
    metric = RegressionMetric
    open_data = staticmethod(open_data)

    def open_split(
        self,
        source: Any,
        schema: RegressionSchema,
        split: str | None = None,
        columns: Columns | None = None,
    ) -> Split:
        """Open one split, its columns matched to the targets by name."""
        opened = open_one(source, schema.read_row, schema.read, split, columns)
        return map_targets(opened, schema.standardize)

    def example_data(self, preprocess: zoo.Preprocess, count: int, seed: int) -> ImageData:
        """Return noise with two numbers for each image."""
        numbers = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
        dataset = TensorDataset(noise(count, preprocess, seed), numbers)
        return self.open_data({"train": dataset, "val": dataset})

    def loss(
        self, outputs: Outputs, targets: torch.Tensor, criterion: Criterion | None = None
    ) -> dict[str, torch.Tensor]:
        """Return the mean squared error of standardized targets, or the user's own loss."""
        if criterion:
            return {"main": call_loss(criterion, outputs.main, targets)}
        return {"main": mse_loss(outputs.main.float(), targets)}

    def predict(
        self, outputs: Outputs, images: Sequence[SourceImage], schema: RegressionSchema, **_: Any
    ) -> list[dict[str, Any]]:
        """Return `[{target, value}]` for each image, in the units of the data."""
        rows = schema.in_units(outputs.main.cpu()).tolist()
        pairs = [zip(schema.targets, row, strict=True) for row in rows]
        return [{"predictions": [{"target": n, "value": v} for n, v in row]} for row in pairs]
