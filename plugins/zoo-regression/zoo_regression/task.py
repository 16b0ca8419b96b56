"""Image regression: what it decides."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import mse_loss
from torch.utils.data import TensorDataset

import zoo
from zoo.data.images import noise
from zoo.data.split import ImageData, Split
from zoo.data.targets import map_targets, open_one
from zoo.tasks.base import BaseTask, Criterion, Outputs, SourceImage
from zoo.tasks.user_functions import call_loss
from zoo_regression.data import RegressionSchema, open_data
from zoo_regression.metrics import RegressionMetric


class ImageRegression(BaseTask):
    """One or several numbers for each image; `BaseTask` says what each method decides."""

    name = "image-regression"
    columns = ("loss", "mae", "rmse", "r2")
    labels = {"mae": "MAE", "r2": "R2"}  # noqa: RUF012
    reserved = (*columns, "images", "per_target")
    loss_label = "mean squared error"
    schema_type = RegressionSchema
    metric = RegressionMetric

    def open_data(
        self, source: Any, *, seed: int = 0, val_fraction: float = 0.2, classes: int | None = None
    ) -> ImageData:
        """Open a table with a header, a `Dataset`, or several by split."""
        return open_data(source, seed, val_fraction)

    def open_split(self, source: Any, schema: RegressionSchema, split: str | None = None) -> Split:
        """Open one split, its columns matched to the targets by name."""
        opened = open_one(source, schema.read_row, schema.read, split)
        return map_targets(opened, schema.standardize)

    def example_data(self, preprocess: zoo.Preprocess, count: int, seed: int) -> ImageData:
        """Return noise with two numbers each."""
        numbers = torch.randn(count, 2, generator=torch.Generator().manual_seed(seed))
        whole = TensorDataset(noise(count, preprocess, seed), numbers)
        return self.open_data({"train": whole, "val": whole})

    def loss(
        self, outputs: Outputs, targets: Tensor, criterion: Criterion | None = None
    ) -> dict[str, Tensor]:
        """Return the mean squared error of standardized targets, or the user's own loss."""
        found = outputs.main.float()
        return {
            "main": call_loss(criterion, found, targets) if criterion else mse_loss(found, targets)
        }

    def predict(
        self, outputs: Outputs, images: Sequence[SourceImage], schema: RegressionSchema, **_: Any
    ) -> list[dict[str, Any]]:
        """Return `[{target, value}]` for each image, in the units of the data."""
        rows = [
            zip(schema.targets, row, strict=True)
            for row in schema.in_units(outputs.main.cpu()).tolist()
        ]
        return [{"predictions": [{"target": n, "value": v} for n, v in row]} for row in rows]
