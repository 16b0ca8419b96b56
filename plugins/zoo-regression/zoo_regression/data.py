"""Images with numbers: a CSV or TSV file, or a `Dataset`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from zoo import DataError
from zoo.data.schema import Schema
from zoo.data.split import ImageData
from zoo.data.targets import hold_out, image_data, map_targets, open_splits, target_columns
from zoo.data.user_dataset import datasets_by_split
from zoo.options.columns import Columns


@dataclass(frozen=True)
class RegressionSchema(Schema):
    """Names of the targets, and their mean and standard deviation over the training images."""

    targets: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @property
    def outputs(self) -> int:
        """Number of targets."""
        return len(self.targets)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the targets."""
        return self.targets

    def read(self, target: Any) -> tuple[float, ...]:
        """Convert a number or several, in the units of the data."""
        numbers = torch.as_tensor(target, dtype=torch.float64).flatten().tolist()
        if len(numbers) != self.outputs or not all(map(math.isfinite, numbers)):
            raise DataError(f"{target} is not {', '.join(self.targets)} in finite numbers")
        return tuple(numbers)

    def read_row(self, row: Mapping[str, str]) -> tuple[float, ...]:
        """Convert the cells of one line of a table."""
        return self.read([float(row[name]) for name in self.targets])

    def standardize(self, numbers: tuple[float, ...]) -> tuple[float, ...]:
        """Scale to mean 0 and standard deviation 1."""
        return tuple((n - m) / s for n, m, s in zip(numbers, self.mean, self.std, strict=True))

    def in_units(self, outputs: torch.Tensor) -> torch.Tensor:
        """Scale outputs `[images, targets]` to the units of the data, float64."""
        std, mean = (outputs.new_tensor(each).double() for each in (self.std, self.mean))
        return outputs * std + mean


def open_data(
    source: Any,
    *,
    seed: int = 0,
    val_fraction: float = 0.2,
    columns: Columns | None = None,
    **_: Any,
) -> ImageData:
    """Open training data, its targets standardized: a table with a header, or `Dataset`s."""
    if isinstance(source, (str, Path)):
        names = target_columns(Path(source), columns)
    else:
        first = 0.0 if source is None else next(iter(datasets_by_split(source)["train"]))[1]
        names = [f"value{number + 1}" for number in range(torch.as_tensor(first).numel())]
    schema = RegressionSchema((), tuple(names))
    opened = open_splits(source, schema.read_row, schema.read, columns)
    splits, reason = hold_out(opened, seed, val_fraction)
    numbers = torch.tensor(splits["train"].targets, dtype=torch.float64)
    std, mean = torch.std_mean(numbers, dim=0, correction=0)
    constant = [name for name, value in zip(names, std.tolist(), strict=True) if not value > 0]
    if constant:
        message = f"{', '.join(constant)} is the same for all training images"
        raise DataError(message, "omit it, or add images of other values")
    schema = replace(schema, mean=tuple(mean.tolist()), std=tuple(std.tolist()))
    scaled = {name: map_targets(split, schema.standardize) for name, split in splits.items()}
    return image_data(source, scaled, schema, reason)
