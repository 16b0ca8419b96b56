"""Cache of prepared images, filled on first read, so that each image is decoded once.

It stores the bytes that `prepare` returns: small caches in memory, others in an unnamed temporary
file, which the system removes when the process ends, killed or not.
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
FREE_MARGIN = 1 << 30

UNREAD, CACHED, BAD = 0, 1, 2

Bounds = Sequence[tuple[int, int]]
Read = Callable[[Sequence[int], Bounds], Iterator[Batch]]


def bytes_needed(images: int, preprocess: Preprocess) -> int:
    """Return the size of prepared images in bytes."""
    return images * preprocess.height * preprocess.width * preprocess.channels


class CachedSplit:
    """The prepared images of one split.

    Args:
        split: to cache.
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
        """Yield batches as a loader does, loading only images that are not cached yet.

        Args:
            order: positions in the split.
            bounds: start and end of each batch in the order.
            load: loads batches of missing images.
            pinned: whether the batches are in page-locked memory.
        """
        positions = torch.tensor(list(order), dtype=torch.int64)
        missing = self.state[positions] == UNREAD
        if missing.any():
            yield from self._fill(positions, bounds, missing, load, pinned)
            return
        for first, last in bounds:
            yield self._read_cached(positions[first:last], pinned)

    def _fill(
        self, positions: Tensor, bounds: Bounds, missing: Tensor, load: Read, pinned: bool
    ) -> Iterator[Batch]:
        ends = torch.cat([torch.zeros(1, dtype=torch.int64), missing.cumsum(0)]).tolist()
        parts = [(ends[first], ends[last]) for first, last in bounds]
        batches = load(positions[missing].tolist(), parts)
        for (first, last), batch in zip(bounds, batches, strict=True):
            requested = positions[first:last]
            self._store(batch, requested)
            complete = len(batch) + len(batch.bad) == last - first
            yield batch if complete else self._read_cached(requested, pinned)

    def _store(self, batch: Batch, requested: Tensor) -> None:
        """Store a loaded batch; requested positions that are not in it are bad images."""
        self.pixels[batch.indices] = batch.inputs.permute(0, 2, 3, 1)
        if self.targets is None and len(batch):
            shape = (len(self.split), *batch.targets.shape[1:])
            self.targets = _allocate(shape, batch.targets.dtype)
        if self.targets is not None:
            self.targets[batch.indices] = batch.targets
        self.state[batch.indices] = CACHED
        unread = requested[self.state[requested] == UNREAD]
        for index, bad in zip(unread.tolist(), batch.bad, strict=True):
            self.bad[index] = bad
            self.state[index] = BAD

    def _read_cached(self, requested: Tensor, pinned: bool) -> Batch:
        indices = requested[self.state[requested] == CACHED]
        shape = (len(indices), *self.pixels.shape[1:])
        images = torch.empty(shape, dtype=torch.uint8, pin_memory=pinned)
        torch.index_select(self.pixels, 0, indices, out=images)
        stored = torch.zeros(0, dtype=torch.int64) if self.targets is None else self.targets
        targets = stored[indices]
        return Batch(
            images.permute(0, 3, 1, 2),
            targets.pin_memory() if pinned else targets,
            indices,
            tuple(self.bad[index] for index in requested.tolist() if index in self.bad),
        )


class ImageCache:
    """The prepared images of splits that do not change.

    Args:
        splits: by name.
        preprocess: that they are prepared with.

    Raises:
        EnvironmentProblem: there is not enough memory and disk space.
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
        return next((cached for cached in self.splits if cached.split is split), None)


def _allocate(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """Allocate a tensor, in memory or in a file by its size.

    Raises:
        EnvironmentProblem: neither has space for it.
    """
    size = math.prod(shape) * dtype.itemsize
    flat = torch.zeros(size, dtype=torch.uint8) if size <= IN_MEMORY else _in_file(size)
    return flat.view(dtype).view(*shape)


def storage_location(size: int) -> str | None:
    """Describe where a number of bytes would be cached; None where there is no space."""
    if size <= IN_MEMORY:
        return "in memory"
    folder = _find_folder(size)
    return None if folder is None else f"in a temporary file in {folder}"


def _find_folder(size: int) -> Path | None:
    for folder in (cache_dir(), Path(tempfile.gettempdir())):
        # A missing folder has the free space of its nearest existing parent.
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        if os.access(existing, os.W_OK) and shutil.disk_usage(existing).free >= size + FREE_MARGIN:
            return folder
    return None


def _in_file(size: int) -> Tensor:
    """Allocate bytes in an unnamed temporary file.

    Raises:
        EnvironmentProblem: there is not enough space, or the file cannot be created.
    """
    folder = _find_folder(size)
    if folder is None:
        message = f"there is no room for {format_bytes(size)} of prepared images"
        raise EnvironmentProblem(message, "free some disk space, or omit --cache-images")
    try:
        with tempfile.TemporaryFile(dir=make_dir(folder)) as file:
            # A sparse file would crash the process with SIGBUS when the disk is full.
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
