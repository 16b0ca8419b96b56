"""Splits chosen by name, and digested."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from zoo.data.split import SPLITS
from zoo.errors import DataError


def listed(names: Iterable[str]) -> str:
    """Join names as a person lists them: `train, val and test`."""
    *some, last = names
    return f"{', '.join(some)} and {last}" if some else last


def choose_split(source: str | Path, names: Mapping[str, str], split: str | None) -> str:
    """Decide which split to evaluate on.

    Args:
        source: of the images, for messages.
        names: what each split that there is is called there.
        split: which one was asked for; None for `test` where there is one, else `val`.

    Raises:
        DataError: there is no such split.
    """
    if split is None:
        for name in ("test", "val"):
            if name in names:
                return name
        mark = "/" if any(called.endswith("/") for called in names.values()) else ""
        message = f"{source} has {listed(names.values())}, but no test{mark} or val{mark}"
        raise DataError(message, "name the split train to evaluate on what a model was trained on")
    name = SPLITS.get(split.lower(), split)
    if name not in names:
        raise DataError(f"{source} has no split {split!r}", f"it has {listed(names.values())}")
    return name


def fingerprint(parts: Mapping[str, Mapping[str, Sequence[tuple[str, int]]]]) -> str:
    """Digest splits by what distinguishes their images: split, path, group and size.

    Args:
        parts: by split and by group, such as a class: each image's path and its size in bytes.
    """
    digest = hashlib.sha256()
    for name, images in parts.items():
        for label, found in images.items():
            for path, size in found:
                digest.update(os.fsencode(f"{name}\0{path}\0{label}\0{size}\0"))
    return digest.hexdigest()
