"""Images and masks matched by name and checked; one report names all faults."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from zoo.data.decode import UnreadableImage, read_size
from zoo.data.scan import counted, is_folder, is_hidden, is_image, list_folder, shorten
from zoo.errors import DataError
from zoo.tasks.segmentation.masks import NotIndices, read_mask
from zoo.tasks.segmentation.schema import IGNORE_INDEX

IMAGES, MASKS = "images", "masks"
NAMED = 3

# By kind of fault: what one and what several are called.
FAULTS = {
    "no mask": ("image without a mask", "images without a mask"),
    "no image": ("mask without an image", "masks without an image"),
    "twice": ("file whose name another has", "files whose names others have"),
    "unreadable": ("unreadable mask", "unreadable masks"),
    "colour": ("mask in colour", "masks in colour"),
    "size": ("mask of another size than its image", "masks of another size than their images"),
    "index": ("mask with an index without a class", "masks with an index without a class"),
}


@dataclass(frozen=True)
class Pair:
    """An image and its mask.

    Args:
        image: its path below the folder of its split, with `/` on every system.
        mask: the same of its mask.
        bytes: sizes of both files.
    """

    image: str
    mask: str
    bytes: tuple[int, int]


@dataclass(frozen=True)
class Seen:
    """What a mask holds.

    Args:
        indices: that occur in it.
        palette: of its file; empty where it has none.
    """

    indices: frozenset[int]
    palette: tuple[str, ...]


@dataclass
class Faults:
    """What is wrong with images and masks, by kind."""

    found: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, where: str) -> None:
        """Note a fault; `kind` is one of `FAULTS`."""
        self.found.setdefault(kind, []).append(where)

    def raise_all(self, root: Path) -> None:
        """Raise one error that names all kinds of faults.

        Raises:
            DataError: there are any.
        """
        if not self.found:
            return
        parts = [
            f"{counted(len(where), *FAULTS[kind])}: {shorten(sorted(where), NAMED)}"
            for kind, where in sorted(self.found.items(), key=lambda item: [*FAULTS].index(item[0]))
        ]
        hint = "each image needs a PNG of its own name, as large as it is"
        if "colour" in self.found:
            hint = "a mask is a PNG, grey or with a palette, whose pixels are indices of classes"
        elif "index" in self.found:
            hint = f"classes.txt names a class for each index; {IGNORE_INDEX} is ignored"
        raise DataError(f"{root} has {'; '.join(parts)}", hint)


def match(root: Path, folder: str, faults: Faults) -> list[Pair]:
    """Return the images of `images/` with the masks of the same names in `masks/`.

    Args:
        root: of the data.
        folder: of the split in it, such as `train/`; empty where there is but one.
        faults: takes what is not in pairs.
    """
    here = root / folder
    images = _by_stem(here, IMAGES, folder, faults)
    masks = _by_stem(here, MASKS, folder, faults)
    for stem in images.keys() - masks.keys():
        faults.add("no mask", f"{folder}{images[stem][0]}")
    for stem in masks.keys() - images.keys():
        faults.add("no image", f"{folder}{masks[stem][0]}")
    return [
        Pair(images[stem][0], masks[stem][0], (images[stem][1], masks[stem][1]))
        for stem in sorted(images.keys() & masks.keys())
    ]


def _by_stem(here: Path, inside: str, folder: str, faults: Faults) -> dict[str, tuple[str, int]]:
    """Return path and size of the images below a folder, by path without folder and suffix."""
    found: dict[str, tuple[str, int]] = {}
    for path, size in _walk(here, inside):
        stem = str(PurePosixPath(path).relative_to(inside).with_suffix(""))
        if stem in found:
            faults.add("twice", f"{folder}{path}")
        else:
            found[stem] = path, size
    return found


def _walk(here: Path, inside: str) -> Iterable[tuple[str, int]]:
    waiting, read = [inside], set()
    while waiting:
        current = waiting.pop()
        identity = os.path.realpath(here / current)
        if identity in read:
            continue
        read.add(identity)
        for entry in list_folder(here / current):
            path = f"{current}/{entry.name}"
            if is_folder(entry):
                waiting.append(path)
            elif is_image(entry.name) and not is_hidden(entry.name) and entry.is_file():
                yield path, entry.stat().st_size


def look_at(root: Path, folder: str, pairs: Sequence[Pair], faults: Faults) -> list[Seen]:
    """Read every mask, and the size of its image.

    Args:
        root: of the data.
        folder: of the split in it.
        pairs: of the split.
        faults: takes masks that cannot be used.

    Returns:
        What the good ones hold, with nothing for the others, in the order of the pairs.
    """
    here = root / folder

    def look(pair: Pair) -> tuple[Seen, tuple[str, str] | None]:
        nothing, name = Seen(frozenset(), ()), f"{folder}{pair.mask}"
        try:
            mask = read_mask(here / pair.mask)
        except UnreadableImage as error:
            kind = "colour" if isinstance(error, NotIndices) else "unreadable"
            return nothing, (kind, f"{name} ({error.reason})")
        height, width = mask.indices.shape
        try:
            size = read_size(here / pair.image)
        except UnreadableImage:
            size = (width, height)  # left to whoever reads it, as an image of any task
        if size != (width, height):
            what = f"{name} ({width} x {height}, its image {size[0]} x {size[1]})"
            return nothing, ("size", what)
        if mask.indices.dtype == np.uint8:
            indices = np.flatnonzero(np.bincount(mask.indices.ravel(), minlength=1))
        else:
            indices = np.unique(mask.indices)
        return Seen(frozenset(indices.tolist()), mask.palette), None

    # Decoding and counting both release the GIL.
    with ThreadPoolExecutor(min(os.cpu_count() or 1, 8)) as pool:
        results = list(pool.map(look, pairs))
    for _, fault in results:
        if fault is not None:
            faults.add(*fault)
    return [seen for seen, _ in results]


def check_indices(
    folder: str, pairs: Sequence[Pair], seen: Sequence[Seen], classes: int, faults: Faults
) -> None:
    """Note masks with indices that are neither a class nor ignored.

    Args:
        folder: of the split.
        pairs: of the split.
        seen: what their masks hold.
        classes: how many there are.
        faults: takes them.
    """
    for pair, each in zip(pairs, seen, strict=True):
        odd = sorted(index for index in each.indices if index >= classes and index != IGNORE_INDEX)
        if odd:
            faults.add("index", f"{folder}{pair.mask} ({shorten(map(str, odd), 3)})")
