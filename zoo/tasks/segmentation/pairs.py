"""Match images and masks by name, and report all faults at once."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from zoo.data.decode import UnreadableImage, read_size
from zoo.data.formats import may_be_image
from zoo.data.names import nfc
from zoo.data.scan import is_folder, is_hidden, list_folder, shorten
from zoo.errors import DataError, counted
from zoo.tasks.segmentation.masks import ColorMask, read_mask
from zoo.tasks.segmentation.schema import IGNORE_INDEX

IMAGES, MASKS = "images", "masks"
MAX_NAMES = 3

# Singular and plural of each kind of fault.
FAULTS = {
    "no mask": ("image without a mask", "images without a mask"),
    "no image": ("mask without an image", "masks without an image"),
    "duplicate": ("file with the name of another", "files with the names of others"),
    "unreadable": ("unreadable mask", "unreadable masks"),
    "colour": ("mask in colour", "masks in colour"),
    "size": ("mask of another size than its image", "masks of another size than their images"),
    "index": ("mask with an index without a class", "masks with an index without a class"),
}


@dataclass(frozen=True)
class Pair:
    """An image and its mask.

    Args:
        image: path relative to the folder of the split, with `/` on every system.
        mask: path of the mask, likewise.
        bytes: sizes of both files.
    """

    image: str
    mask: str
    bytes: tuple[int, int]


@dataclass(frozen=True)
class MaskContent:
    """Indices and palette of a mask.

    Args:
        indices: that occur in it.
        palette: of the file; empty without one.
    """

    indices: frozenset[int]
    palette: tuple[str, ...]


@dataclass
class Faults:
    """Faults of images and masks, by kind."""

    names: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, name: str) -> None:
        """Record a fault; `kind` is a key of `FAULTS`."""
        self.names.setdefault(kind, []).append(name)

    def raise_all(self, root: Path) -> None:
        """Raise one error that lists all faults, if any.

        Raises:
            DataError: there are faults.
        """
        if not self.names:
            return
        parts = [
            f"{counted(len(names), *FAULTS[kind])}: {shorten(sorted(names), MAX_NAMES)}"
            for kind, names in sorted(self.names.items(), key=lambda item: [*FAULTS].index(item[0]))
        ]
        hint = "each image needs a PNG of the same name and size"
        if "colour" in self.names:
            hint = "a mask is a PNG, grey or with a palette, whose pixels are indices of classes"
        elif "index" in self.names:
            hint = f"classes.txt names a class for each index; {IGNORE_INDEX} is ignored"
        raise DataError(f"{root} has {'; '.join(parts)}", hint)


def match_pairs(root: Path, folder: str, faults: Faults) -> list[Pair]:
    """Pair the files in `images/` and `masks/` by name.

    Args:
        root: of the data.
        folder: of the split in it, such as `train/`; empty without split folders.
        faults: receives unpaired files.
    """
    base = root / folder
    images = _by_stem(base, IMAGES, folder, faults)
    masks = _by_stem(base, MASKS, folder, faults)
    for stem in images.keys() - masks.keys():
        faults.add("no mask", f"{folder}{images[stem][0]}")
    for stem in masks.keys() - images.keys():
        faults.add("no image", f"{folder}{masks[stem][0]}")
    return [
        Pair(images[stem][0], masks[stem][0], (images[stem][1], masks[stem][1]))
        for stem in sorted(images.keys() & masks.keys())
    ]


def _by_stem(base: Path, subfolder: str, folder: str, faults: Faults) -> dict[str, tuple[str, int]]:
    """Return path and size of each image below a subfolder, by path without it and the suffix."""
    files: dict[str, tuple[str, int]] = {}
    for path, size in _walk(base, subfolder):
        stem = nfc(str(PurePosixPath(path).relative_to(subfolder).with_suffix("")))
        if stem in files:
            faults.add("duplicate", f"{folder}{path}")
        else:
            files[stem] = path, size
    return files


def _walk(base: Path, subfolder: str) -> Iterable[tuple[str, int]]:
    pending, visited = [subfolder], set()
    while pending:
        current = pending.pop()
        identity = os.path.realpath(base / current)
        if identity in visited:
            continue
        visited.add(identity)
        for entry in list_folder(base / current):
            path = f"{current}/{entry.name}"
            if is_folder(entry):
                pending.append(path)
            elif may_be_image(entry.name) and not is_hidden(entry.name) and entry.is_file():
                yield path, entry.stat().st_size


def read_masks(root: Path, folder: str, pairs: Sequence[Pair], faults: Faults) -> list[MaskContent]:
    """Read every mask, and compare its size with that of its image.

    Args:
        root: of the data.
        folder: of the split in it.
        pairs: of the split.
        faults: receives unusable masks.

    Returns:
        The content of each mask, in the order of the pairs; empty for unusable ones.
    """
    base = root / folder

    def read(pair: Pair) -> tuple[MaskContent, tuple[str, str] | None]:
        empty, name = MaskContent(frozenset(), ()), f"{folder}{pair.mask}"
        try:
            mask = read_mask(base / pair.mask)
        except UnreadableImage as error:
            kind = "colour" if isinstance(error, ColorMask) else "unreadable"
            return empty, (kind, f"{name} ({error.reason})")
        height, width = mask.indices.shape
        try:
            size = read_size(base / pair.image)
        except UnreadableImage:
            size = (width, height)  # unreadable images are reported when read, as for every task
        if size != (width, height):
            detail = f"{name} ({width} x {height}, its image {size[0]} x {size[1]})"
            return empty, ("size", detail)
        if mask.indices.dtype == np.uint8:
            indices = np.flatnonzero(np.bincount(mask.indices.ravel(), minlength=1))
        else:
            indices = np.unique(mask.indices)
        return MaskContent(frozenset(indices.tolist()), mask.palette), None

    # Decoding and counting both release the GIL.
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        results = list(pool.map(read, pairs))
    for _, fault in results:
        if fault is not None:
            faults.add(*fault)
    return [content for content, _ in results]


def check_indices(
    folder: str, pairs: Sequence[Pair], masks: Sequence[MaskContent], classes: int, faults: Faults
) -> None:
    """Record masks with indices that are neither a class nor ignored.

    Args:
        folder: of the split.
        pairs: of the split.
        masks: content of their masks.
        classes: number of classes.
        faults: receives them.
    """
    for pair, mask in zip(pairs, masks, strict=True):
        unknown = sorted(i for i in mask.indices if i >= classes and i != IGNORE_INDEX)
        if unknown:
            faults.add("index", f"{folder}{pair.mask} ({shorten(map(str, unknown), MAX_NAMES)})")
