"""Published sets of pictures by name, `cifar10:DIR`, as torchvision lays them out on disk."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zoo.data.arrays import Part, PublishedSet
from zoo.data.cifar import CIFAR10, CIFAR100
from zoo.data.mnist import FASHION_MNIST, MNIST
from zoo.data.scan import shorten
from zoo.data.split import ArraySplit, ImageData, check_known, draw_held
from zoo.data.splitting import check_drawn, choose_split, why_drawn
from zoo.errors import DataError, UsageError, did_you_mean

PUBLISHED: Mapping[str, PublishedSet] = {
    "cifar10": CIFAR10,
    "cifar100": CIFAR100,
    "mnist": MNIST,
    "fashion-mnist": FASHION_MNIST,
}


def find_published(source: str | Path) -> tuple[PublishedSet, Path] | None:
    """Return the set that a source names, and its folder; None where it is a path.

    Raises:
        UsageError: it is neither a path that exists nor a set that is known.
    """
    written = str(source)
    # Never raises, where pathlib would for a path without permission.
    if os.path.lexists(written):
        return None
    prefix, colon, place = written.partition(":")
    found = PUBLISHED.get(prefix.lower())
    if found is None:
        # A single letter is a drive, and a name of more parts a path that is missing.
        if not colon or not re.fullmatch(r"[A-Za-z][\w-]+", prefix):
            return None
        message = f"there is no {written}, and {prefix!r} is no published set that zoo reads"
        raise UsageError(message, did_you_mean(prefix, list(PUBLISHED), f"it reads {_known()}"))
    if not place:
        hint = f"give {prefix}:DIR, where DIR is what torchvision.datasets calls root"
        raise UsageError(f"{written} does not say where {found.title} lies", hint)
    return found, Path(os.path.expanduser(place))  # noqa: PTH111 - pathlib's raises


def _known() -> str:
    return ", ".join(f"{prefix}:DIR" for prefix in PUBLISHED)


def open_published(
    published: PublishedSet, place: Path, *, seed: int, val_fraction: float
) -> ImageData:
    """Read a published set, and hold a part of its training pictures out.

    Args:
        published: which one.
        place: what torchvision was given as root, or the folder with the files itself.
        seed: decides which pictures are held out.
        val_fraction: the share of each class that is held out, between 0 and 1.

    Raises:
        DataError: it is not there, not whole, or damaged.
    """
    folder = published.locate(place)
    classes = published.class_names(folder)
    train, test = (published.read(folder, split, len(classes)) for split in ("train", "test"))
    notices = _check(published, folder, classes, train, test)
    held = _draw(train, len(classes), seed, val_fraction)
    splits = {
        "train": _split("train", train, np.flatnonzero(~held)),
        "val": _split("val", train, np.flatnonzero(held)),
        "test": _split("test", test, np.arange(len(test.labels))),
    }
    return ImageData(
        name=published.title,
        classes=classes,
        splits=splits,
        fingerprint=_fingerprint(splits, classes),
        notices=tuple(notices),
        reason=why_drawn("train", seed, val_fraction),
    )


def open_published_split(
    published: PublishedSet, place: Path, classes: Sequence[str], split: str | None = None
) -> ArraySplit:
    """Read the pictures of a published set to evaluate a model on.

    Args:
        published: which one.
        place: as for `open_published`.
        classes: the model's, in its order; labels point into them by name.
        split: `train`, whole as published, or `test`; None for `test`.

    Raises:
        DataError: it is not there, not whole, or damaged; no such split; or classes that the
            model does not know.
    """
    folder = published.locate(place)
    name = choose_split(published.title, {"train": "train", "test": "test"}, split)
    own = published.class_names(folder)
    part = published.read(folder, name, len(own))
    check_known([own[label] for label in sorted(set(part.labels))], classes, folder)
    place_of = {label: classes.index(own[label]) for label in set(part.labels)}
    found = Part(part.images, tuple(place_of[label] for label in part.labels), part.names)
    return _split(name, found, np.arange(len(found.labels)))


def _check(
    published: PublishedSet, folder: Path, classes: Sequence[str], train: Part, test: Part
) -> list[str]:
    """Hold what was read against what was published, and say what differs."""
    notices = []
    for name, part, size in zip(("train", "test"), (train, test), published.sizes, strict=True):
        count = len(part.labels)
        if not count:
            raise DataError(f"{folder} holds no pictures of {name}", "fetch it again")
        if count != size:
            notices.append(f"{name} has {count:,} pictures, where {size:,} were published")
        counts = _counts(part, len(classes))
        missing = [label for label, found in zip(classes, counts, strict=True) if not found]
        lacks = f"no pictures of {len(missing)} of {len(classes)} classes: {shorten(missing)}"
        if missing and name == "train":
            raise DataError(f"train of {folder} has {lacks}", "fetch it again")
        if missing:
            notices.append(f"{name} has {lacks}")
        if name == "train":
            lone = [label for label, found in zip(classes, counts, strict=True) if found == 1]
            notices += check_drawn(lone, len(classes), f"train of {folder}")
    return notices


def _counts(part: Part, n_classes: int) -> list[int]:
    counts: list[int] = np.bincount(part.labels, minlength=n_classes).tolist()
    return counts


def _draw(part: Part, n_classes: int, seed: int, fraction: float) -> NDArray[np.bool_]:
    """Mark the pictures that are held out: a share of every class, by name as files are."""
    labels = np.array(part.labels)
    held = np.zeros(len(labels), dtype=bool)
    for label in range(n_classes):
        places = np.flatnonzero(labels == label)
        drawn = draw_held([part.names[place] for place in places], seed, fraction)
        held[places[sorted(drawn)]] = True
    return held


def _split(name: str, part: Part, rows: NDArray[np.intp]) -> ArraySplit:
    places = rows.tolist()
    labels = tuple(part.labels[place] for place in places)
    return ArraySplit(name, part.images, rows, labels, tuple(part.names[i] for i in places))


def _fingerprint(splits: Mapping[str, ArraySplit], classes: Sequence[str]) -> str:
    """Digest splits, classes, names and pixels; the same however the files are packed."""
    digest = hashlib.sha256()
    for name, split in splits.items():
        for picture, label in zip(split.names, split.labels, strict=True):
            digest.update(f"{name}\0{picture}\0{classes[label]}\0".encode())
        for first in range(0, len(split), 1024):
            digest.update(split.pixels(first, first + 1024))
    return digest.hexdigest()
