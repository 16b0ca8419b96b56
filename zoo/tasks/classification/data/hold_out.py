"""Splits of folders and tables: compared by class, drawn, and built."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from zoo.data.groups import check_sides, draw_held_out_groups
from zoo.data.names import nfc, positions
from zoo.data.scan import shorten
from zoo.data.split import FileSplit, draw_held_out
from zoo.data.split_choice import describe_no_validation
from zoo.errors import DataError, counted, did_you_mean
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


@dataclass(frozen=True)
class HoldOut:
    """How validation images are held out of a source that has no validation split.

    Args:
        seed: of the draw.
        fraction: share of each class, between 0 and 1; 0 for no validation split.
        group: column of a table with the group of each image.
        group_by: regular expression that finds the group in a path.
    """

    seed: int
    fraction: float
    group: str | None = None
    group_by: str | None = None

    @property
    def grouped(self) -> bool:
        """Whether images are held out in groups."""
        return self.group is not None or self.group_by is not None


def complete_splits(
    source: Path,
    parts: dict[str, Images],
    how: HoldOut,
    train_name: SplitName,
    groups: Mapping[str, str],
) -> tuple[str | None, list[str]]:
    """Add `val` to the splits, unless it is there or nothing is to be held out.

    Args:
        source: of the images, for messages.
        parts: images by split, changed in place.
        how: to hold them out.
        train_name: of the train split.
        groups: of every image, by path; empty without.

    Returns:
        The origin of the split, None if it was there; and warnings, one line each.

    Raises:
        DataError: no image can be held out, or a group is in two of the given splits.
    """
    if how.grouped:
        sides = {
            split: [groups[path] for entries in images.values() for path, _ in entries]
            for split, images in parts.items()
        }
        check_sides(sides, source)
    if "val" in parts:
        return None, []
    if not how.fraction:
        return describe_no_validation(train_name.short), []
    if how.grouped:
        parts["train"], parts["val"], count = _hold_out_groups(parts["train"], how, groups)
        reason = describe_hold_out(train_name.short, how.seed, how.fraction)
        return f"{reason} in {count}", _check_lone_groups(parts["val"], train_name.full)
    parts["train"], parts["val"] = hold_out(parts["train"], how.seed, how.fraction)
    lone = [label for label, images in parts["val"].items() if not images]
    notices = check_single_images(lone, len(parts["val"]), train_name.full)
    return describe_hold_out(train_name.short, how.seed, how.fraction), notices


def _hold_out_groups(
    images: Images, how: HoldOut, groups: Mapping[str, str]
) -> tuple[Images, Images, str]:
    """Hold out whole groups; return the two parts, and the number of groups in words."""
    paths = [(path, label) for label, entries in images.items() for path, _ in entries]
    drawn = draw_held_out_groups(
        [groups[path] for path, _ in paths], [label for _, label in paths], how.seed, how.fraction
    )
    held_out = {paths[index][0] for index in drawn}
    train = {
        label: [e for e in entries if e[0] not in held_out] for label, entries in images.items()
    }
    val = {label: [e for e in entries if e[0] in held_out] for label, entries in images.items()}
    total = len({groups[path] for path, _ in paths})
    return train, val, f"{len({groups[path] for path in held_out})} of {counted(total, 'group')}"


def _check_lone_groups(held_out: Images, source: str) -> list[str]:
    lone = [label for label, images in held_out.items() if not images]
    if len(lone) == len(held_out):
        hint = "at least two are needed, one to train and one to validate; or give --val 0"
        raise DataError(f"no group of {source} can be held out", hint)
    if not lone:
        return []
    classes = counted(len(lone), "class has", "classes have")
    return [f"{classes} no images in groups held out, and are not validated: {shorten(lone)}"]


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
    """Report classes with a single image, which cannot be held out.

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


def file_split(
    name: str,
    root: Path,
    images: Images,
    classes: Sequence[str],
    groups: Mapping[str, str] | None = None,
) -> FileSplit:
    """Build a split of images, their labels as indices into the classes.

    Args:
        name: of the split.
        root: of the paths.
        images: by class.
        classes: in order.
        groups: of every image, by path; None or empty without.
    """
    index_of = positions(classes)
    paths = tuple(path for entries in images.values() for path, _ in entries)
    return FileSplit(
        name=name,
        root=root,
        paths=paths,
        targets=tuple(index_of[nfc(label)] for label, entries in images.items() for _ in entries),
        groups=tuple(groups[path] for path in paths) if groups else (),
    )
