"""Select a split by name; fingerprint splits."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from zoo.data.names import nfc, split_of
from zoo.errors import DataError


def listed(names: Iterable[str]) -> str:
    """Join names for a message: `train, val and test`."""
    *others, last = names
    return f"{', '.join(others)} and {last}" if others else last


def choose_split(source: str | Path, names: Mapping[str, str], split: str | None) -> str:
    """Return the split to evaluate on.

    Args:
        source: of the images, for messages.
        names: of each split in the source, by zoo's name.
        split: the requested split; None for `test` where there is one, else `val`.

    Raises:
        DataError: there is no such split.
    """
    if split is None:
        for name in ("test", "val"):
            if name in names:
                return name
        mark = "/" if any(name.endswith("/") for name in names.values()) else ""
        message = f"{source} has {listed(names.values())}, but no test{mark} or val{mark}"
        raise DataError(message, "name the split train to evaluate on what a model was trained on")
    name = split_of(split) or split
    if name not in names:
        raise DataError(f"{source} has no split {split!r}", f"it has {listed(names.values())}")
    return name


def describe_wrapper(root: Path, inner: Path) -> str:
    """Describe that data is in a folder alone in the given one."""
    return f"the folder is {inner.relative_to(root).as_posix()}/, alone in {root}"


def describe_no_validation(source: str = "") -> str:
    """Describe that no validation images are held out of a train split, or of all images."""
    suffix = f" of {source}" if source else ""
    return f"nothing{suffix} is held out: all images train, without validation"


def fingerprint(parts: Mapping[str, Mapping[str, Sequence[tuple[str, int]]]]) -> str:
    """Digest the split, path, group and size of all images, accents in names composed.

    Args:
        parts: path and size in bytes of each image, by split and by group, such as a class.
    """
    digest = hashlib.sha256()
    for name, images in parts.items():
        for group, files in images.items():
            for path, size in files:
                digest.update(os.fsencode(nfc(f"{name}\0{path}\0{group}\0{size}\0")))
    return digest.hexdigest()
