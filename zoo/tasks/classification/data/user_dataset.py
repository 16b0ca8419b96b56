"""A `Dataset` or `DataLoader` of the user's own, as splits like any other.

Items are `(image, label)`. An image that Pillow or numpy holds, or a uint8 tensor, goes through
the same preparation as a file's; a tensor of floats is taken to be prepared already, as
`zoo.transform` prepares it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Subset

from zoo.data.scan import shorten
from zoo.data.schema import Schema
from zoo.data.split import ImageData, Split, draw_held
from zoo.data.user_dataset import DatasetSplit, choose_part, parts_of, read_item, where_in
from zoo.errors import DataError


@dataclass(frozen=True)
class ClassIndex:
    """Reads the target of an item as a class index.

    Args:
        classes: how many there are.
    """

    classes: int

    def __call__(self, target: Any) -> int:
        """Return the index.

        Raises:
            DataError: it is none of the classes.
        """
        label = _read_label(target)
        if not 0 <= label < self.classes:
            raise DataError(f"its label is {label}, and there are {self.classes} classes")
        return label


@dataclass(frozen=True)
class LoaderSplit(Split):
    """Batches of a `DataLoader`, in its own order.

    Args:
        name: of the split.
        loader: theirs.
        targets: as far as its dataset states them; empty where it does not.
        classes: how many there are.
    """

    name: str
    loader: DataLoader[Any]
    targets: tuple[int, ...]
    classes: int

    def __len__(self) -> int:
        return len(self.loader.dataset)  # type: ignore[arg-type]

    def steps(self, batch_size: int) -> int:
        """Return how many batches the loader gives in an epoch."""
        return len(self.loader)

    def where(self, index: int) -> str:
        """Return the item's position in the loader's dataset."""
        return f"item {index} of the DataLoader"

    def picture(self, index: int) -> Image.Image:
        """Refuse: a loader gives batches only."""
        raise DataError("a DataLoader gives batches, and no single images")

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield its batches: images `[n, channels, height, width]` and labels `[n]`, int64.

        Batch norm cannot train on one image, so a single one left over joins the batch before.

        Raises:
            DataError: what it yields is something else.
        """
        pending: list[tuple[Tensor, Tensor]] = []
        for batch in self._checked():
            pending.append(batch)
            if len(pending) > 2:
                yield pending.pop(0)
        if len(pending) == 2 and len(pending[1][1]) == 1 < len(pending[0][1]):
            (images, labels), (last, label) = pending
            pending = [(torch.cat([images, last]), torch.cat([labels, label]))]
        yield from pending

    def _checked(self) -> Iterator[tuple[Tensor, Tensor]]:
        for batch in self.loader:
            if not isinstance(batch, (tuple, list)) or len(batch) != 2:
                raise DataError(f"the DataLoader yields a {type(batch).__name__}, not a pair")
            images, labels = batch[0], torch.as_tensor(batch[1])
            if (
                not isinstance(images, Tensor)
                or images.ndim != 4
                or labels.shape != images.shape[:1]
            ):
                raise DataError("the DataLoader must yield images [n, c, h, w] and labels [n]")
            if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.classes:
                message = (
                    f"labels {int(labels.min())} to {int(labels.max())} come from the DataLoader"
                )
                raise DataError(f"{message}, and there are {self.classes} classes")
            yield images if images.dtype == torch.uint8 else images.float(), labels.long()


def _read_label(target: Any) -> int:
    number = int(target)
    if number != target:
        raise DataError(f"its label {target!r} is no whole number")
    return number


def _label(dataset: Any, index: int) -> int:
    try:
        return int(read_item(dataset, index, _read_label)[1])
    except DataError as error:
        hint = "labels that the dataset states in its attribute `targets` need no reading"
        message = f"cannot read the label of {where_in(dataset, index)}: {error.message}"
        raise DataError(message, hint) from error


def _labels(dataset: Any) -> tuple[int, ...]:
    """Return every label: as the dataset states them, or read item by item.

    Raises:
        DataError: the dataset fails on an item.
    """
    if isinstance(dataset, Subset):
        inner = _labels(dataset.dataset)
        return tuple(inner[index] for index in dataset.indices)
    if isinstance(dataset, ConcatDataset):
        return tuple(label for part in dataset.datasets for label in _labels(part))
    # A transform of the labels makes others of them than the dataset states.
    if getattr(dataset, "target_transform", None) is None:
        for stated in (getattr(dataset, name, None) for name in ("targets", "labels")):
            if (found := _whole_numbers(stated)) is not None and len(found) == len(dataset):
                return found
    return tuple(_label(dataset, index) for index in range(len(dataset)))


def _whole_numbers(stated: Any) -> tuple[int, ...] | None:
    """Return what a dataset states as labels; None where it is something else, such as names."""
    if not isinstance(stated, (list, tuple, np.ndarray, Tensor)):
        return None
    values = np.asarray(stated)
    if values.ndim != 1 or values.dtype.kind not in "iu":
        return None
    return tuple(values.tolist())


def _stated_names(dataset: Any) -> tuple[str, ...] | None:
    """Return the names of classes that a dataset states; None where it states none."""
    if isinstance(dataset, (Subset, DataLoader)):
        return _stated_names(dataset.dataset)
    if isinstance(dataset, ConcatDataset):
        stated = {_stated_names(part) for part in dataset.datasets}
        return stated.pop() if len(stated) == 1 else None
    names = getattr(dataset, "classes", None)
    return tuple(map(str, names)) if isinstance(names, (list, tuple)) and names else None


def _class_names(
    parts: Mapping[str, Any], labels: Mapping[str, Sequence[int]], classes: int | None
) -> tuple[str, ...]:
    """Return the names that the datasets state, or else numbers.

    Raises:
        DataError: two of them state other names, or a label is none of them.
    """
    found = {name: _stated_names(part) for name, part in parts.items()}
    stated = {names for names in found.values() if names is not None}
    if len(stated) > 1:
        stated_by = "; ".join(f"{name}: {shorten(names)}" for name, names in found.items() if names)
        raise DataError(f"the splits have other classes, or in another order: {stated_by}")
    most = max((label for part in labels.values() for label in part), default=-1)
    names = stated.pop() if stated else None
    # Some datasets state fewer names than they have labels, or other things under that name.
    if names is None or len(names) <= most:
        names = tuple(map(str, range(classes if classes is not None else most + 1)))
    for name, part in labels.items():
        for row, label in enumerate(part):
            if not 0 <= label < len(names):
                message = f"the label of item {row} of data[{name!r}] is {label}"
                raise DataError(message, f"{len(names)} classes are 0 to {len(names) - 1}")
    return names


def open_own(
    source: Any, *, seed: int, val_fraction: float, classes: int | None = None
) -> ImageData:
    """Take a `Dataset`, or a mapping of splits to `Dataset`s or `DataLoader`s, as images.

    Args:
        source: theirs; of a lone `Dataset` a share of each class is held out to validate.
        seed: decides which items are held out.
        val_fraction: the share of each class that is held out.
        classes: how many there are, where the dataset names none; None to go by its labels.

    Raises:
        UsageError: it is none of these.
        DataError: it is empty, or gives something else than images and labels.
    """
    parts = parts_of(source)
    labels = {
        name: ()
        if isinstance(part, DataLoader) and classes is not None
        else _labels(part.dataset if isinstance(part, DataLoader) else part)
        for name, part in parts.items()
    }
    names = _class_names(parts, labels, classes)
    if len(names) < 2:
        raise DataError(f"the dataset has {len(names)} class", "two are the least")
    splits = {
        name: _own_split(name, part, labels[name], len(names)) for name, part in parts.items()
    }
    kind = type(source if not isinstance(source, Mapping) else parts["train"]).__name__
    reason = "splits as given"
    if "val" not in splits:
        splits["train"], splits["val"] = _held_out(splits["train"], len(names), seed, val_fraction)
        reason = f"{100 * val_fraction:g} % of each class held out by seed {seed}"
    order = [name for name in ("train", "val", "test") if name in splits]
    return ImageData(
        name=f"your {kind}",
        schema=Schema(names),
        splits={name: splits[name] for name in order},
        fingerprint=_fingerprint({name: splits[name] for name in order}, names),
        notices=(),
        reason=reason,
        deterministic=False,
        batch_size=parts["train"].batch_size if isinstance(parts["train"], DataLoader) else None,
    )


def _own_split(name: str, part: Any, labels: tuple[int, ...], classes: int) -> Split:
    if isinstance(part, DataLoader):
        return LoaderSplit(name, part, labels, classes)
    return DatasetSplit(name, part, tuple(range(len(part))), labels, ClassIndex(classes))


def _held_out(
    split: Split, classes: int, seed: int, fraction: float
) -> tuple[DatasetSplit, DatasetSplit]:
    assert isinstance(split, DatasetSplit)
    by_class: list[list[int]] = [[] for _ in range(classes)]
    for index, label in zip(split.indices, split.targets, strict=True):
        by_class[label].append(index)
    held = {
        indices[drawn]
        for indices in by_class
        if len(indices) > 1
        for drawn in draw_held([str(index) for index in indices], seed, fraction)
    }
    if not held:
        hint = "two are the least, one to train and one to validate"
        raise DataError("every class of the dataset has a single item", hint)

    def part(name: str, wanted: bool) -> DatasetSplit:
        rows = [row for row, index in enumerate(split.indices) if (index in held) is wanted]
        indices = tuple(split.indices[row] for row in rows)
        return replace(
            split, name=name, indices=indices, targets=tuple(split.targets[r] for r in rows)
        )

    return part("train", False), part("val", True)


def open_own_split(source: Any, classes: Sequence[str], split: str | None) -> Split:
    """Take a `Dataset`, a `DataLoader`, or one of a mapping, to evaluate a model on.

    Labels are positions in the model's classes, in its order.

    Raises:
        UsageError: it is none of these.
        DataError: there is no such split, or its classes are not the model's.
    """
    name, part = choose_part(source, split)
    stated = _stated_names(part)
    if stated is not None and stated != tuple(classes):
        message = f"the dataset's classes are not the model's, in its order: {shorten(stated)}"
        raise DataError(message, f"the model has {shorten(classes)}")
    labels = {name: () if isinstance(part, DataLoader) else _labels(part)}
    _class_names({}, labels, len(classes))
    return _own_split(name, part, labels[name], len(classes))


def _fingerprint(splits: Mapping[str, Split], classes: Sequence[str]) -> str:
    """Digest what can be known without reading every image: labels and classes."""
    digest = hashlib.sha256("\0".join(classes).encode())
    for name, split in splits.items():
        digest.update(f"\0{name}\0{len(split)}\0".encode())
        digest.update(np.asarray(split.targets, dtype=np.int64).tobytes())
    return digest.hexdigest()
