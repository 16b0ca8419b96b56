"""Splits of a `Dataset` or `DataLoader` of the user.

Items are `(image, label)`. A PIL image, a numpy array or a uint8 tensor is preprocessed as an image
file is; a float tensor is expected to be preprocessed already, as by `zoo.transform`.
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

from zoo.data.names import nfc
from zoo.data.scan import shorten
from zoo.data.schema import Schema
from zoo.data.split import ImageData, Split, draw_held_out
from zoo.data.split_choice import describe_no_validation
from zoo.data.user_dataset import (
    DatasetSplit,
    datasets_by_split,
    item_location,
    read_item,
    select_dataset,
)
from zoo.errors import DataError, counted

NO_INTEGERS = "the DataLoader yields labels that are not integers"


@dataclass(frozen=True)
class ClassIndex:
    """Reads the target of an item as a class index.

    Args:
        classes: number of classes.
    """

    classes: int

    def __call__(self, target: Any) -> int:
        """Return the index.

        Raises:
            DataError: it is not an index of a class.
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
        loader: of the user.
        targets: labels, if known without reading the batches; else empty.
        classes: number of classes.
    """

    name: str
    loader: DataLoader[Any]
    targets: tuple[int, ...]
    classes: int

    def __len__(self) -> int:
        return len(self.loader.dataset)  # type: ignore[arg-type]

    def steps(self, batch_size: int) -> int:
        """Return the number of batches per epoch."""
        return len(self.loader)

    def where(self, index: int) -> str:
        """Return the position of an item in the loader's dataset."""
        return f"item {index} of the DataLoader"

    def image(self, index: int) -> Image.Image:
        """Raise `DataError`: a loader yields batches only."""
        raise DataError("a DataLoader yields batches, not single images")

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the batches: images `[n, channels, height, width]` and labels `[n]`, int64.

        Batch norm cannot train on one image, so a last batch of one joins the batch before it.

        Raises:
            DataError: the loader yields something else.
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
            images, labels = batch[0], _as_tensor(batch[1])
            if (
                not isinstance(images, Tensor)
                or images.ndim != 4
                or labels.shape != images.shape[:1]
            ):
                raise DataError("the DataLoader must yield images [n, c, h, w] and labels [n]")
            if bool((labels.long() != labels).any()):
                raise DataError(NO_INTEGERS)
            if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < self.classes:
                extremes = f"{int(labels.min())} to {int(labels.max())}"
                message = f"the DataLoader yields labels {extremes}"
                raise DataError(f"{message}, and there are {self.classes} classes")
            yield images if images.dtype == torch.uint8 else images.float(), labels.long()


def _as_tensor(labels: Any) -> Tensor:
    try:
        return torch.as_tensor(labels)
    except (TypeError, ValueError, RuntimeError) as error:  # such as names
        raise DataError(NO_INTEGERS) from error


def _read_label(target: Any) -> int:
    number = int(target)
    if number != target:
        raise DataError(f"its label {target!r} is not an integer")
    return number


def _label(dataset: Any, index: int) -> int:
    try:
        return int(read_item(dataset, index, _read_label)[1])
    except DataError as error:
        hint = "define the attribute `targets`, from which labels are read without loading items"
        message = f"cannot read the label of {item_location(dataset, index)}: {error.message}"
        raise DataError(message, hint) from error


def _labels(dataset: Any) -> tuple[int, ...]:
    """Return every label: from an attribute of the dataset, or read item by item.

    Raises:
        DataError: the dataset fails on an item.
    """
    if isinstance(dataset, Subset):
        inner = _labels(dataset.dataset)
        return tuple(inner[index] for index in dataset.indices)
    if isinstance(dataset, ConcatDataset):
        return tuple(label for part in dataset.datasets for label in _labels(part))
    # A target_transform is not applied to the attribute.
    if getattr(dataset, "target_transform", None) is None:
        for values in (getattr(dataset, name, None) for name in ("targets", "labels")):
            if (labels := _integers(values)) is not None and len(labels) == len(dataset):
                return labels
    return tuple(_label(dataset, index) for index in range(len(dataset)))


def _integers(values: Any) -> tuple[int, ...] | None:
    """Return a sequence of integers as a tuple; None for anything else, such as names."""
    if not isinstance(values, (list, tuple, np.ndarray, Tensor)):
        return None
    try:
        array = np.asarray(values.cpu() if isinstance(values, Tensor) else values)
    except ValueError:  # lists of several lengths
        return None
    if array.ndim != 1 or array.dtype.kind not in "iu":
        return None
    return tuple(array.tolist())


def _declared_names(dataset: Any) -> tuple[str, ...] | None:
    """Return the attribute `classes` of a dataset; None if it has none."""
    if isinstance(dataset, (Subset, DataLoader)):
        return _declared_names(dataset.dataset)
    if isinstance(dataset, ConcatDataset):
        declared = {_declared_names(part) for part in dataset.datasets}
        return declared.pop() if len(declared) == 1 else None
    names: Any = getattr(dataset, "classes", None)
    names = names.tolist() if hasattr(names, "tolist") else names  # of an array or a series
    return tuple(nfc(str(n)) for n in names) if isinstance(names, (list, tuple)) and names else None


def _class_names(
    parts: Mapping[str, Any], labels: Mapping[str, Sequence[int]], classes: int | None
) -> tuple[str, ...]:
    """Return the class names of the datasets, or else numbers.

    Raises:
        DataError: the names of two datasets differ, or a label has no class.
    """
    by_split = {name: _declared_names(part) for name, part in parts.items()}
    declared = {names for names in by_split.values() if names is not None}
    if len(declared) > 1:
        text = "; ".join(f"{name}: {shorten(names)}" for name, names in by_split.items() if names)
        raise DataError(f"the splits have other classes, or in another order: {text}")
    highest = max((label for part in labels.values() for label in part), default=-1)
    names = next(iter(declared), None)
    if names is None:
        names = tuple(map(str, range(classes if classes is not None else highest + 1)))
    for name, part in labels.items():
        for row, label in enumerate(part):
            if not 0 <= label < len(names):
                message = f"the label of item {row} of data[{name!r}] is {label}"
                hint = f"{len(names)} classes are 0 to {len(names) - 1}"
                raise DataError(message, f"{hint}: {shorten(names)}" if declared else hint)
    return names


def open_dataset(
    source: Any, *, seed: int, val_fraction: float, classes: int | None = None
) -> ImageData:
    """Open a `Dataset`, or a mapping of splits to `Dataset`s or `DataLoader`s, for training.

    Args:
        source: of the user; without `val`, a share of each class is held out.
        seed: of the draw of held-out items.
        val_fraction: share of each class to hold out.
        classes: number of classes, if the dataset names none; None to infer it from the labels.

    Raises:
        UsageError: it is of another type.
        DataError: it is empty, or its items are not images and labels.
    """
    parts = datasets_by_split(source)
    labels = {
        name: ()
        if isinstance(part, DataLoader) and classes is not None
        else _labels(part.dataset if isinstance(part, DataLoader) else part)
        for name, part in parts.items()
    }
    names = _class_names(parts, labels, classes)
    if len(names) < 2:
        message = f"the dataset has {counted(len(names), 'class')}"
        raise DataError(message, "at least two are needed")
    if len(set(labels["train"])) == 1:
        (label,) = set(labels["train"])
        message = f"all labels of data['train'] are {label}, of the class {names[label]}"
        raise DataError(message, "at least two classes are needed")
    splits = {
        name: _make_split(name, part, labels[name], len(names)) for name, part in parts.items()
    }
    kind = type(source if not isinstance(source, Mapping) else parts["train"]).__name__
    reason = "splits as given"
    own_val = "val" in splits
    if not own_val and not val_fraction:
        reason = describe_no_validation()
    elif not own_val:
        splits["train"], splits["val"] = _hold_out(splits["train"], len(names), seed, val_fraction)
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
        own_val=own_val,
    )


def _make_split(name: str, part: Any, labels: tuple[int, ...], classes: int) -> Split:
    if isinstance(part, DataLoader):
        return LoaderSplit(name, part, labels, classes)
    return DatasetSplit(name, part, tuple(range(len(part))), labels, ClassIndex(classes))


def _hold_out(
    split: Split, classes: int, seed: int, fraction: float
) -> tuple[DatasetSplit, DatasetSplit]:
    assert isinstance(split, DatasetSplit)
    by_class: list[list[int]] = [[] for _ in range(classes)]
    for index, label in zip(split.indices, split.targets, strict=True):
        by_class[label].append(index)
    held_out = {
        indices[drawn]
        for indices in by_class
        if len(indices) > 1
        for drawn in draw_held_out([str(index) for index in indices], seed, fraction)
    }
    if not held_out:
        hint = "at least two are needed, one to train and one to validate"
        raise DataError("every class of the dataset has a single item", hint)

    def part(name: str, selected: bool) -> DatasetSplit:
        rows = [row for row, index in enumerate(split.indices) if (index in held_out) is selected]
        indices = tuple(split.indices[row] for row in rows)
        return replace(
            split, name=name, indices=indices, targets=tuple(split.targets[r] for r in rows)
        )

    return part("train", False), part("val", True)


def open_dataset_split(source: Any, classes: Sequence[str], split: str | None) -> Split:
    """Open a `Dataset`, a `DataLoader`, or one of a mapping, to evaluate a model on.

    Labels are indices into the model's classes.

    Raises:
        UsageError: it is of another type.
        DataError: there is no such split, or its classes are not the model's.
    """
    name, part = select_dataset(source, split)
    declared = _declared_names(part)
    if declared is not None and declared != tuple(map(nfc, classes)):
        message = f"the dataset's classes are not the model's, in its order: {shorten(declared)}"
        raise DataError(message, f"the model has {shorten(classes)}")
    labels = {name: () if isinstance(part, DataLoader) else _labels(part)}
    _class_names({}, labels, len(classes))
    return _make_split(name, part, labels[name], len(classes))


def _fingerprint(splits: Mapping[str, Split], classes: Sequence[str]) -> str:
    """Hash labels and classes, which are available without reading every image."""
    digest = hashlib.sha256("\0".join(classes).encode())
    for name, split in splits.items():
        digest.update(f"\0{name}\0{len(split)}\0".encode())
        digest.update(np.asarray(split.targets, dtype=np.int64).tobytes())
    return digest.hexdigest()
