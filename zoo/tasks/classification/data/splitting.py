"""What folders and tables share: splits compared by class, drawn and made."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from zoo.data.scan import counted, shorten
from zoo.data.split import FileSplit, draw_held
from zoo.errors import DataError, did_you_mean
from zoo.tasks.classification.data.scan import Images


class SplitName(NamedTuple):
    """What messages call a split.

    Args:
        full: its path, such as `photos/val`.
        short: where the data are named already, such as `val/`; empty where there is but one.
    """

    full: str
    short: str


def check_held(train: Images, held: Images, here: SplitName, there: SplitName) -> list[str]:
    """Compare a split that came with the images with the train split.

    Args:
        train: images of the train split.
        held: images of the other.
        here: the other.
        there: the train split.

    Returns:
        What looks odd, one line each.

    Raises:
        DataError: it has no images, or classes that the train split has not.
    """
    if not held:
        otherwise = f"without it, some of {there.full} is held out"
        raise DataError(f"{here.full} holds no images", otherwise)
    unknown = [label for label in held if label not in train]
    if unknown:
        hint = did_you_mean(unknown[0], list(train), f"{there.full} has {shorten(train)}")
        message = f"{here.full} holds classes that {there.full} does not: {shorten(unknown)}"
        raise DataError(message, hint)
    notices = []
    missing = [label for label in train if label not in held]
    if missing:
        lacks = f"{len(missing)} of {len(train)} classes"
        notices.append(f"{here.short} has no images of {lacks}: {shorten(missing)}")
    twice = sum(len(set(found).intersection(train[label])) for label, found in held.items())
    if twice:
        both = f"{there.short} and {here.short}"
        notices.append(f"{both} share {counted(twice, 'image')} of the same name and size")
    return notices


def check_known(found: Sequence[str], classes: Sequence[str], where: str | Path) -> None:
    """Refuse classes that a model does not know.

    Args:
        found: names of classes.
        classes: the model's.
        where: they were found.

    Raises:
        DataError: names those that are unknown.
    """
    known = set(classes)
    if unknown := [name for name in found if name not in known]:
        hint = did_you_mean(unknown[0], classes, f"it knows {shorten(classes)}")
        message = f"{where} holds classes that the model does not know: {shorten(unknown)}"
        raise DataError(message, hint)


def hold_out(images: Images, seed: int, fraction: float) -> tuple[Images, Images]:
    """Draw a share of every class, at least one image and never all."""
    train: Images = {}
    held_out: Images = {}
    for label, found in images.items():
        drawn = draw_held([path for path, _ in found], seed, fraction)
        train[label] = [image for index, image in enumerate(found) if index not in drawn]
        held_out[label] = [image for index, image in enumerate(found) if index in drawn]
    return train, held_out


def why_drawn(there: str, seed: int, fraction: float) -> str:
    """Describe how the validation split was drawn; `there` is what it was drawn from, if named."""
    inside = f" of {there}" if there else ""
    return f"{100 * fraction:g} % of each class{inside} held out by seed {seed}"


def check_drawn(lone: Sequence[str], n_classes: int, there: str) -> list[str]:
    """Report which classes are too small to hold any image out.

    Args:
        lone: classes with a single image.
        n_classes: how many classes there are.
        there: what was drawn from.

    Returns:
        What looks odd, one line each.

    Raises:
        DataError: all of them are, so that nothing is left to validate.
    """
    if len(lone) == n_classes:
        hint = "two are the least, one to train and one to validate"
        raise DataError(f"every class of {there} has a single image", hint)
    if not lone:
        return []
    single = counted(len(lone), "class has", "classes have")
    return [f"{single} a single image, which trains and is not validated: {shorten(lone)}"]


def file_split(name: str, root: Path, images: Images, classes: Sequence[str]) -> FileSplit:
    """Make a split of images; labels point into the classes by name."""
    label_of = {label: index for index, label in enumerate(classes)}
    return FileSplit(
        name=name,
        root=root,
        paths=tuple(path for found in images.values() for path, _ in found),
        targets=tuple(label_of[label] for label, found in images.items() for _ in found),
    )
