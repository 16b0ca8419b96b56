"""A `Dataset` of the user's own as a split, whatever its targets are.

Items are `(image, target)`. An image that Pillow or numpy has, or a uint8 tensor, goes through the
same preparation as a file's; a tensor of floats is taken to be prepared already, as `zoo.transform`
prepares it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from zoo.data.decode import decode
from zoo.data.split import SPLITS, Split
from zoo.errors import DataError, UsageError, one_line

FORMS = "give a Dataset, or {'train': ..., 'val': ...} of Datasets or DataLoaders"


def as_given(target: Any) -> Any:
    """Return a target as it is."""
    return target


@dataclass(frozen=True)
class DatasetSplit(Split):
    """Items of a `Dataset`.

    Args:
        name: of the split.
        dataset: theirs.
        indices: positions in the dataset.
        targets: the target of each item, as the task has them.
        read_target: makes of an item's target what the task has; raises where it cannot.
    """

    name: str
    dataset: Any
    indices: tuple[int, ...]
    targets: tuple[Any, ...]
    read_target: Callable[[Any], Any] = as_given
    draws: ClassVar[bool] = True

    def where(self, index: int) -> str:
        """Return the item's position in its dataset."""
        return where_in(self.dataset, self.indices[index])

    def picture(self, index: int) -> Image.Image:
        """Read an item as an image.

        Raises:
            UnreadableImage: its image cannot be read.
            DataError: it is no image, or the dataset fails on it.
        """
        image, _ = self.sample(index)
        if isinstance(image, Tensor):
            raise DataError(f"{self.where(index)} is a tensor that is prepared already")
        return image

    def sample(
        self, index: int, at_least: tuple[int, int] | None = None, content: bytes | None = None
    ) -> tuple[Image.Image | Tensor, Any]:
        """Read an item, as an image in full or as a tensor that is prepared already.

        Raises:
            UnreadableImage: its image cannot be read.
            DataError: it is no image, or the dataset fails on it.
        """
        image, target = read_item(self.dataset, self.indices[index], self.read_target)
        return to_image(image), target


def read_item(dataset: Any, index: int, read_target: Callable[[Any], Any]) -> tuple[Any, Any]:
    """Return an item of a dataset, its image as it is given and its target as it is read.

    Raises:
        DataError: the dataset fails on it, or it is no pair, or no target.
    """
    try:
        image, target = dataset[index]
        return image, read_target(target)
    except DataError:
        raise
    except Exception as error:  # their code can raise anything
        message = f"the dataset gives no image and label: {one_line(error)[:160]}"
        raise DataError(message) from error


def where_in(dataset: Any, index: int) -> str:
    """Return how messages call an item."""
    return f"item {index} of the {type(dataset).__name__}"


def to_image(image: Any) -> Image.Image | Tensor:
    """Return an image in full, or a tensor of floats as it is.

    Raises:
        DataError: it is no image.
    """
    if isinstance(image, Tensor):
        if image.is_floating_point():
            return image
        image = image.movedim(0, -1).numpy() if image.ndim == 3 else image.numpy()
    if isinstance(image, np.ndarray):
        try:
            image = Image.fromarray(image.squeeze(-1) if image.shape[-1:] == (1,) else image)
        except (TypeError, ValueError) as error:
            raise DataError(f"an array {image.shape} {image.dtype} is no image") from error
    if not isinstance(image, Image.Image):
        raise DataError(f"a {type(image).__name__} is no image")
    return decode(image)


def check_dataset(part: Any, name: str) -> None:
    """Refuse what cannot be read item by item.

    Raises:
        UsageError: it is no Dataset or DataLoader, or has no length.
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


def parts_of(source: Any) -> dict[str, Any]:
    """Return what was given by split.

    Raises:
        UsageError: it is none of the forms.
    """
    parts = dict(source) if isinstance(source, Mapping) else {"train": source}
    unknown = [name for name in parts if name not in SPLITS]
    if unknown or "train" not in {SPLITS[name] for name in parts}:
        raise UsageError(f"data has the splits {', '.join(map(str, parts)) or 'none'}", FORMS)
    parts = {SPLITS[name]: part for name, part in parts.items()}
    for name, part in parts.items():
        check_dataset(part, f"data[{name!r}]" if isinstance(source, Mapping) else "data")
    if isinstance(parts["train"], DataLoader) and "val" not in parts:
        raise UsageError("a DataLoader cannot be split", "give {'train': loader, 'val': loader}")
    return parts


def choose_part(source: Any, split: str | None) -> tuple[str, Any]:
    """Return the name and the dataset of one split, to evaluate a model on.

    Args:
        source: a dataset, which is measured whole as `all`, or a mapping of splits to datasets.
        split: which; None for `test` where there is one, else `val`, else the first.

    Raises:
        UsageError: it cannot be read item by item.
        DataError: there is no such split.
    """
    if not isinstance(source, Mapping):
        check_dataset(source, "data")
        return "all", source
    parts = {SPLITS.get(name, str(name)): part for name, part in source.items()}
    wanted = ("test", "val", *parts) if split is None else (SPLITS.get(split, split),)
    found = [name for name in wanted if name in parts]
    if not found:
        raise DataError(f"data has no split {split!r}", f"it has {', '.join(parts)}")
    check_dataset(parts[found[0]], f"data[{found[0]!r}]")
    return found[0], parts[found[0]]
