"""Splits over the items of a `Dataset`, for any kind of target.

Items are `(image, target)`. PIL images, arrays and uint8 tensors are preprocessed like image
files; float tensors must be preprocessed already, such as by `zoo.transform`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from zoo.data.decode import decode
from zoo.data.names import split_of
from zoo.data.pixels import as_image_source, to_array
from zoo.data.split import Split
from zoo.data.values import Ranges, Values, array_values, image_values
from zoo.errors import DataError, UsageError, one_line

FORMS = "give a Dataset, or {'train': ..., 'val': ...} of Datasets or DataLoaders"


def identity(target: Any) -> Any:
    """Return a target unchanged."""
    return target


@dataclass(frozen=True)
class DatasetSplit(Split):
    """Items of a `Dataset`.

    Args:
        name: of the split.
        dataset: the dataset.
        indices: indices of the items in the dataset.
        targets: the target of each item, as read by `read_target`.
        read_target: converts the target of an item to that of the task; raises if invalid.
        ranges: of values by type, see `measure_ranges`.
    """

    name: str
    dataset: Any
    indices: tuple[int, ...]
    targets: tuple[Any, ...]
    read_target: Callable[[Any], Any] = identity
    ranges: Ranges = ()
    draws: ClassVar[bool] = True

    def where(self, index: int) -> str:
        """Return the name of an item in messages: its index in the dataset."""
        return item_location(self.dataset, self.indices[index])

    def image(self, index: int) -> Image.Image:
        """Return the image of an item.

        Raises:
            UnreadableImage: the image cannot be decoded.
            DataError: it is not an image, or the dataset raises.
        """
        image, _ = self.sample(index)
        if isinstance(image, Tensor):
            raise DataError(f"{self.where(index)} is a tensor that is prepared already")
        return image

    def sample(
        self, index: int, at_least: tuple[int, int] | None = None, content: bytes | None = None
    ) -> tuple[Image.Image | Tensor, Any]:
        """Return an item as a full-size image, or a preprocessed tensor, with its target.

        Raises:
            UnreadableImage: the image cannot be decoded.
            DataError: it is not an image, or the dataset raises.
        """
        image, target = read_item(self.dataset, self.indices[index], self.read_target)
        return to_image(image, self.ranges), target

    def values(self, index: int, skip: Collection[str] = ()) -> Values | None:
        """Return the values of an item's image as the dataset returns it."""
        try:
            image, _ = read_item(self.dataset, self.indices[index], self.read_target)
            if isinstance(image, Image.Image):
                image.load()  # before, its mode may be that of the file, of more bits
        except Exception:  # damaged bytes raise nearly any, and are reported when decoded
            return None
        if isinstance(image, Tensor):
            image = None if image.is_floating_point() else to_array(image)
        values = None
        if isinstance(image, Image.Image):
            values = image_values(image)
        elif isinstance(image, np.ndarray):
            values = array_values(image)
        return values if values is not None and values.kind not in skip else None

    def with_ranges(self, ranges: Ranges) -> DatasetSplit:
        """Return the split with its images scaled by these ranges."""
        return replace(self, ranges=ranges)


def read_item(dataset: Any, index: int, read_target: Callable[[Any], Any]) -> tuple[Any, Any]:
    """Return the image of an item unchanged, and its target as read by `read_target`.

    Raises:
        DataError: the dataset raises, the item is not a pair, or its target is invalid.
    """
    try:
        image, target = dataset[index]
        return image, read_target(target)
    except DataError:
        raise
    except Exception as error:  # user code can raise anything
        message = f"the dataset does not return an image and a target: {one_line(error)[:160]}"
        raise DataError(message) from error


def item_location(dataset: Any, index: int) -> str:
    """Return the name of an item in messages."""
    return f"item {index} of the {type(dataset).__name__}"


def to_image(image: Any, ranges: Ranges = ()) -> Image.Image | Tensor:
    """Return an image at full size, scaled by ranges, or a float tensor unchanged.

    Raises:
        DataError: it is not an image.
    """
    if isinstance(image, Tensor) and image.is_floating_point():
        return image
    image = as_image_source(image, ranges)
    if not isinstance(image, Image.Image):
        raise DataError(f"a {type(image).__name__} is no image")
    return decode(image, ranges)


def check_dataset(part: Any, name: str) -> None:
    """Check that a dataset has a length and indexed items.

    Raises:
        UsageError: it is not a Dataset or DataLoader, or has no length.
        DataError: it is empty.
    """
    inner = part.dataset if isinstance(part, DataLoader) else part
    if not isinstance(inner, Dataset) or isinstance(inner, IterableDataset):
        kind = type(inner).__name__
        raise UsageError(f"{name} is a {kind}, not a Dataset with a length", FORMS)
    try:
        empty = len(inner) == 0  # type: ignore[arg-type]
    except (TypeError, NotImplementedError) as error:
        raise UsageError(f"{name} is a {type(inner).__name__} that states no length") from error
    if empty:
        raise DataError(f"{name} is empty", FORMS)


def datasets_by_split(source: Any) -> dict[str, Any]:
    """Return datasets by split.

    Raises:
        UsageError: the source has none of the supported forms.
    """
    parts = dict(source) if isinstance(source, Mapping) else {"train": source}
    names = [split_of(str(name)) for name in parts]
    if None in names or "train" not in names or len(set(names)) < len(names):
        raise UsageError(f"data has the splits {', '.join(map(str, parts)) or 'none'}", FORMS)
    parts = {str(name): part for name, part in zip(names, parts.values(), strict=True)}
    for name, part in parts.items():
        check_dataset(part, f"data[{name!r}]" if isinstance(source, Mapping) else "data")
    if isinstance(parts["train"], DataLoader) and "val" not in parts:
        raise UsageError("a DataLoader cannot be split", "give {'train': loader, 'val': loader}")
    return parts


def select_dataset(source: Any, split: str | None) -> tuple[str, Any]:
    """Return the name and the dataset of one split, for evaluation.

    Args:
        source: a dataset, which is the split `all`, or a mapping of splits to datasets.
        split: name; None for the first of `test` and `val` that exists, else the first split.

    Raises:
        UsageError: the dataset has no length or no indexed items.
        DataError: there is no such split.
    """
    if not isinstance(source, Mapping):
        check_dataset(source, "data")
        return "all", source
    parts = {split_of(str(name)) or str(name): part for name, part in source.items()}
    names = ("test", "val", *parts) if split is None else (split_of(split) or split,)
    name = next((name for name in names if name in parts), None)
    if name is None:
        raise DataError(f"data has no split {split!r}", f"it has {', '.join(parts)}")
    check_dataset(parts[name], f"data[{name!r}]")
    return name, parts[name]
