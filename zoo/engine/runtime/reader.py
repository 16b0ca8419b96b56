"""Read splits as batches for a device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor

from zoo.data.augment import Draw
from zoo.data.bad_images import UnreadableImages, merge_bad
from zoo.data.batch import PendingBatch
from zoo.data.dataset import SampleTransform, check_shape
from zoo.data.image_cache import Bounds, ImageCache
from zoo.data.loader import Batch, SplitBatches, batch_bounds, can_use_threads, load_batches
from zoo.data.split import Split
from zoo.engine.runtime.device import reader_processes, reader_threads
from zoo.engine.runtime.distributed import Ranks, fail_together
from zoo.errors import DataError

Computed = TypeVar("Computed")


@dataclass(frozen=True)
class ImageReader:
    """Reads splits as batches, and records images that cannot be read.

    Args:
        transform: from image and target to tensors.
        device: that computes on the batches.
        batch_size: samples per batch.
        workers: number of processes that decode; 0 for threads, where the split allows them; None
            for `reader_processes`.
        bad_images: `error` raises after a pass that met unreadable images, in training at the
            first; `skip` omits them.
        bad: reasons by path of unreadable images so far; shared by copies of the reader.
        cache: of prepared images; None decodes each time.
        incomplete: paths of files so far that lack their last bytes; shared by copies.
    """

    transform: SampleTransform
    device: torch.device
    batch_size: int
    workers: int | None = None
    bad_images: str = "error"
    bad: dict[str, str] = field(default_factory=dict)
    cache: ImageCache | None = None
    incomplete: set[str] = field(default_factory=set)

    def steps(self, split: Split) -> int:
        """Return the number of batches of a split in training."""
        steps = split.steps(self.batch_size)
        return len(batch_bounds(len(split), self.batch_size)) if steps is None else steps

    def read(
        self,
        split: Split,
        order: Sequence[int],
        draw: Draw | None = None,
        digest: bool = False,
        training: bool = False,
        bounds: Bounds | None = None,
    ) -> Iterator[Batch]:
        """Yield batches of a split in an order; batches of a `DataLoader` in its own order.

        Args:
            split: to read.
            order: positions in the split.
            draw: the epoch's augmentation; None for none.
            digest: whether to digest the content too.
            training: whether a single remaining image is added to the batch before.
            bounds: start and end of each batch in the order; empty batches are yielded too.

        Raises:
            UnreadableImages: images cannot be read and `bad_images` is `error`.
        """
        if split.steps(self.batch_size) is not None:
            for inputs, targets in split.batches():
                if len(inputs):
                    self._check_first(inputs)
                yield Batch(inputs, targets, torch.arange(len(targets)))
            return
        if draw is None and split.draws:
            # A user's Dataset then draws the same numbers each time, in every process.
            draw = Draw(None, seed=0, epoch=0)
        batches = self._batches(split, order, draw, digest, training, bounds)
        pairs = ((batch, None) for batch in batches)
        for batch, _ in self.recorded(pairs, len(order), training, bounds is not None):
            yield batch

    def pending(
        self,
        split: Split,
        order: Sequence[int],
        draw: Draw | None = None,
        digest: bool = False,
    ) -> Iterator[PendingBatch] | None:
        """Return the batches that `read` yields, for threads that each read their own.

        The batches are for `recorded`.

        Returns:
            None where one thread has to read them, or others than the caller's threads do.
        """
        ready_made = split.steps(self.batch_size) is not None
        if ready_made or self.workers or self.cache or not can_use_threads(split, draw):
            return None
        read = SplitBatches(split, self.transform, draw, digest).read
        bounds = batch_bounds(len(order), self.batch_size, training=False)
        parts = (list(order[first:last]) for first, last in bounds)
        return (PendingBatch(partial(read, part)) for part in parts)

    def recorded(
        self,
        pairs: Iterable[tuple[Batch, Computed]],
        total: int,
        training: bool = False,
        empty: bool = False,
    ) -> Iterator[tuple[Batch, Computed]]:
        """Yield batches and what belongs to them, and record the images that cannot be read.

        Args:
            pairs: a batch, and anything.
            total: number of images.
            training: whether to raise at the first such image.
            empty: whether to yield batches without images.

        Raises:
            UnreadableImages: images cannot be read and `bad_images` is `error`.
        """
        strict = self.bad_images == "error"
        bad: dict[str, str] = {}
        for batch, computed in pairs:
            bad |= {each.path: each.reason for each in batch.bad}
            if bad and strict and training:
                raise UnreadableImages(bad)
            self.bad.update(bad)
            self.incomplete.update(batch.incomplete)
            if len(batch) or empty:
                yield batch, computed
        if bad and strict:
            raise UnreadableImages(bad, total)

    def _batches(
        self,
        split: Split,
        order: Sequence[int],
        draw: Draw | None,
        digest: bool,
        training: bool,
        bounds: Bounds | None,
    ) -> Iterator[Batch]:
        """Load batches, or read them from the cache."""
        pinned = self.device.type == "cuda"
        threads, ahead = reader_threads(self.device)

        def load(order: Sequence[int], bounds: Bounds) -> Iterator[Batch]:
            workers = self.workers
            if workers is None:
                alike = can_use_threads(split, draw)
                workers = reader_processes(self.device, len(order)) if alike else 0
            return load_batches(
                split,
                self.transform,
                order,
                self.batch_size,
                workers,
                pin_memory=pinned,
                draw=draw,
                bounds=bounds,
                digest=digest,
                threads=0 if workers else threads,
                ahead=ahead,
            )

        if bounds is None:
            bounds = batch_bounds(len(order), self.batch_size, training)
        cached = None
        if self.cache is not None and draw is None:
            cached = self.cache.split(split, self.transform.preprocess)
        if cached is None:
            return load(order, bounds)
        return cached.read(order, bounds, load, pinned)

    def _check_first(self, inputs: Tensor) -> None:
        """Check that batches of a `DataLoader` have the network's input shape.

        Raises:
            DataError: they have another shape.
        """
        try:
            check_shape(inputs[0], self.transform.preprocess)
        except DataError as error:
            message = f"an image of the DataLoader is not for this network: {error}"
            raise DataError(message) from error


def raise_unreadable(reader: ImageReader, total: int, ranks: Ranks) -> None:
    """Raise an error that names all images that could not be read, if bad images are errors.

    Args:
        reader: that recorded them.
        total: number of images that were read.
        ranks: of the processes that read them.

    Raises:
        UnreadableImages: there are any; in all processes.
    """
    if reader.bad_images == "error":
        bad = merge_bad(ranks.gather(reader.bad))
        with fail_together(ranks):
            if bad:
                raise UnreadableImages(bad, total)
