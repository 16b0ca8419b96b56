"""Splits of folders and tables: compared by class, drawn, and built."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from zoo.data.names import nfc, positions
from zoo.data.scan import counted, shorten
from zoo.data.split import FileSplit, draw_held_out
from zoo.errors import DataError, did_you_mean
from zoo.tasks.classification.data.scan import Images


class SplitName(NamedTuple):
    """The names of a split in messages.

    Args:
        full: its path, such as `photos/val`.
        short: relative to the data, such as `val/`; empty for the only split.
    """

    full: str
    short: str


def compare_with_train(
    train: Images, other: Images, other_name: SplitName, train_name: SplitName
) -> list[str]:
    """Compare a given validation or test split with the train split.

    Args:
        train: images of the train split.
        other: images of the other split.
        other_name: of the other split.
        train_name: of the train split.

    Returns:
        Warnings, one line each.

    Raises:
        DataError: it has no images, or classes that are not in the train split.
    """
    if not other:
        message = f"{other_name.full} contains no images"
        raise DataError(message, f"remove it to hold out some of {train_name.full}")
    unknown = [label for label in other if label not in train]
    if unknown:
        hint = did_you_mean(unknown[0], list(train), f"{train_name.full} has {shorten(train)}")
        classes = shorten(unknown)
        message = f"{other_name.full} has classes that {train_name.full} does not: {classes}"
        raise DataError(message, hint)
    notices = []
    missing = [label for label in train if label not in other]
    if missing:
        classes = f"{len(missing)} of {len(train)} classes"
        notices.append(f"{other_name.short} has no images of {classes}: {shorten(missing)}")
    return notices


def check_known(names: Sequence[str], classes: Sequence[str], source: str | Path) -> None:
    """Refuse classes that are unknown to a model.

    Args:
        names: classes of the data.
        classes: of the model.
        source: of the data, for messages.

    Raises:
        DataError: names the unknown classes.
    """
    known = positions(classes)
    if unknown := [name for name in names if nfc(name) not in known]:
        hint = did_you_mean(unknown[0], classes, f"the model has {shorten(classes)}")
        message = f"{source} has classes unknown to the model: {shorten(unknown)}"
        raise DataError(message, hint)


def hold_out(images: Images, seed: int, fraction: float) -> tuple[Images, Images]:
    """Hold out a share of every class, at least one image and never all."""
    train: Images = {}
    held_out: Images = {}
    for label, entries in images.items():
        drawn = draw_held_out([path for path, _ in entries], seed, fraction)
        train[label] = [image for index, image in enumerate(entries) if index not in drawn]
        held_out[label] = [image for index, image in enumerate(entries) if index in drawn]
    return train, held_out


def describe_hold_out(source: str, seed: int, fraction: float) -> str:
    """Describe the draw of the validation split; `source` is the train split, or empty."""
    suffix = f" of {source}" if source else ""
    return f"{100 * fraction:g} % of each class{suffix} held out by seed {seed}"


def check_single_images(lone: Sequence[str], n_classes: int, source: str) -> list[str]:
    """Report classes with a single image, of which none can be held out.

    Args:
        lone: classes with a single image.
        n_classes: number of classes.
        source: of the images, for messages.

    Returns:
        Warnings, one line each.

    Raises:
        DataError: every class has a single image, so that none is left to validate.
    """
    if len(lone) == n_classes:
        hint = "at least two are needed, one to train and one to validate"
        raise DataError(f"every class of {source} has a single image", hint)
    if not lone:
        return []
    single = counted(len(lone), "class has", "classes have")
    return [f"{single} a single image, used for training only: {shorten(lone)}"]


def file_split(name: str, root: Path, images: Images, classes: Sequence[str]) -> FileSplit:
    """Build a split of images, their labels as indices into the classes."""
    index_of = positions(classes)
    return FileSplit(
        name=name,
        root=root,
        paths=tuple(path for entries in images.values() for path, _ in entries),
        targets=tuple(index_of[nfc(label)] for label, entries in images.items() for _ in entries),
    )
