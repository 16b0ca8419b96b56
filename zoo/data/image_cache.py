"""A cache of prepared images, filled as they are first read, so that each is decoded once.

It stores the bytes that `prepare` gives, in memory where they are few, and else in a temporary
file without a name, which the system removes with the process however that ends.
"""

from __future__ import annotations

import math
import mmap
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from zoo.data.loader import BadImage, Batch
from zoo.data.split import Split
from zoo.errors import EnvironmentProblem
from zoo.files import cache_dir, environment_problem, make_dir
from zoo.spec import Preprocess

IN_MEMORY = 256 << 20
LEFT_FREE = 1 << 30

UNREAD, CACHED, BAD = 0, 1, 2

Bounds = Sequence[tuple[int, int]]
Read = Callable[[Sequence[int], Bounds], Iterator[Batch]]


def bytes_needed(images: int, preprocess: Preprocess) -> int:
    """Return how many bytes so many prepared images take."""
    return images * preprocess.height * preprocess.width * preprocess.channels


class CachedSplit:
    """The prepared images of one split.

    Args:
        split: whose images.
        pixels: `[images, height, width, channels]` uint8, to write into.
    """

    def __init__(self, split: Split, pixels: Tensor) -> None:
        self.split = split
        self.pixels = pixels
        self.state = torch.zeros(len(split), dtype=torch.uint8)
        self.targets: Tensor | None = None
        self.bad: dict[int, BadImage] = {}

    def read(
        self, order: Sequence[int], bounds: Bounds, load: Read, pinned: bool
    ) -> Iterator[Batch]:
        """Yield batches as a loader would, reading only what is not cached yet.

        Args:
            order: positions in the split.
            bounds: where the order is cut into batches.
            load: reads batches of what is missing.
            pinned: whether the batches are in page-locked memory.
        """
        positions = torch.tensor(list(order), dtype=torch.int64)
        missing = self.state[positions] == UNREAD
        if missing.any():
            yield from self._fill(positions, bounds, missing, load, pinned)
            return
        for first, last in bounds:
            yield self._take(positions[first:last], pinned)

    def _fill(
        self, positions: Tensor, bounds: Bounds, missing: Tensor, load: Read, pinned: bool
    ) -> Iterator[Batch]:
        ends = torch.cat([torch.zeros(1, dtype=torch.int64), missing.cumsum(0)]).tolist()
        parts = [(ends[first], ends[last]) for first, last in bounds]
        batches = load(positions[missing].tolist(), parts)
        for (first, last), batch in zip(bounds, batches, strict=True):
            wanted = positions[first:last]
            self._put(batch, wanted)
            whole = len(batch) + len(batch.bad) == last - first
            yield batch if whole else self._take(wanted, pinned)

    def _put(self, batch: Batch, wanted: Tensor) -> None:
        """Keep what a loader gave of the wanted positions; those that it could not read, too."""
        self.pixels[batch.indices] = batch.inputs.permute(0, 2, 3, 1)
        if self.targets is None and len(batch):
            shape = (len(self.split), *batch.targets.shape[1:])
            self.targets = _allocate(shape, batch.targets.dtype)
        if self.targets is not None:
            self.targets[batch.indices] = batch.targets
        self.state[batch.indices] = CACHED
        unread = wanted[self.state[wanted] == UNREAD]
        for index, bad in zip(unread.tolist(), batch.bad, strict=True):
            self.bad[index] = bad
            self.state[index] = BAD

    def _take(self, wanted: Tensor, pinned: bool) -> Batch:
        found = wanted[self.state[wanted] == CACHED]
        shape = (len(found), *self.pixels.shape[1:])
        images = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
        torch.index_select(self.pixels, 0, found, out=images)
        stored = torch.zeros(0, dtype=torch.int64) if self.targets is None else self.targets
        targets = stored[found]
        return Batch(
            images.permute(0, 3, 1, 2),
            targets.pin_memory() if pinned else targets,
            found,
            tuple(self.bad[index] for index in wanted.tolist() if index in self.bad),
        )


class ImageCache:
    """The prepared images of those splits that do not change.

    Args:
        splits: by name.
        preprocess: for which they are prepared.

    Raises:
        EnvironmentProblem: neither memory nor disk has space for them.
    """

    def __init__(self, splits: Mapping[str, Split], preprocess: Preprocess) -> None:
        self.preprocess = preprocess
        images = sum(map(len, splits.values()))
        shape = (images, preprocess.height, preprocess.width, preprocess.channels)
        rows = _allocate(shape, torch.uint8).split([len(split) for split in splits.values()])
        self.splits = [
            CachedSplit(split, part) for split, part in zip(splits.values(), rows, strict=True)
        ]

    def split(self, split: Split, preprocess: Preprocess) -> CachedSplit | None:
        """Return the cached images of a split; None where it is not cached."""
        if preprocess != self.preprocess:
            return None
        return next((each for each in self.splits if each.split is split), None)


def _allocate(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Allocate a tensor, in memory or in a file by its size.

    Raises:
        EnvironmentProblem: neither has space for it.
    """
    size = math.prod(shape) * dtype.itemsize
    flat = torch.zeros(size, dtype=torch.uint8) if size <= IN_MEMORY else _in_file(size)
    return flat.view(dtype).view(*shape)


def storage_location(size: int) -> str | None:
    """Return where so many bytes would be cached, for people; None where there is no space."""
    if size <= IN_MEMORY:
        return "in memory"
    folder = _find_folder(size)
    return None if folder is None else f"in a temporary file in {folder}"


def _find_folder(size: int) -> Path | None:
    for folder in (cache_dir(), Path(tempfile.gettempdir())):
        # A folder that does not exist yet has the space of its nearest parent that does.
        there = next(parent for parent in (folder, *folder.parents) if parent.exists())
        if os.access(there, os.W_OK) and shutil.disk_usage(there).free >= size + LEFT_FREE:
            return folder
    return None


def _in_file(size: int) -> Tensor:
    """Allocate bytes in a file without a name.

    Raises:
        EnvironmentProblem: there is no space, or the system refuses.
    """
    folder = _find_folder(size)
    if folder is None:
        raise EnvironmentProblem(f"there is no room for {format_bytes(size)} of prepared images")
    try:
        with tempfile.TemporaryFile(dir=make_dir(folder)) as file:
            # What is only promised to be there would end the process where the disk fills up.
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, size)
            else:
                file.truncate(size)
            return torch.frombuffer(mmap.mmap(file.fileno(), size), dtype=torch.uint8)
    except OSError as error:
        raise environment_problem(error, folder) from error


def format_bytes(size: int) -> str:
    """Return a number of bytes for people."""
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.1f} MiB"
