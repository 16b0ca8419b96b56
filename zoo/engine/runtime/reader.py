"""Reading splits as batches, for a network on its device."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from zoo.data.augment import Draw
from zoo.data.dataset import SampleTransform, check_shape
from zoo.data.image_cache import Bounds, ImageCache
from zoo.data.loader import Batch, batch_bounds, load_batches
from zoo.data.split import Split
from zoo.engine.runtime.device import reading
from zoo.errors import DataError


@dataclass(frozen=True)
class ImageReader:
    """Reads splits as batches, and records images that cannot be read.

    Args:
        transform: makes tensors of each sample.
        device: that computes on the batches.
        batch_size: samples per batch.
        workers: processes that decode; with none, threads of this one do where they can.
        bad_images: `error` stops at the first image that cannot be read, `skip` leaves it out.
        bad: reason by path, of those met so far; shared by copies of the reader.
        cache: prepared images that need no decoding any more; None decodes each time.
    """

    transform: SampleTransform
    device: torch.device
    batch_size: int
    workers: int = 0
    bad_images: str = "error"
    bad: dict[str, str] = field(default_factory=dict)
    cache: ImageCache | None = None

    def steps(self, split: Split) -> int:
        """Return how many batches a split makes in training."""
        ready = split.steps(self.batch_size)
        return len(batch_bounds(len(split), self.batch_size)) if ready is None else ready

    def read(
        self,
        split: Split,
        order: Sequence[int],
        draw: Draw | None = None,
        digest: bool = False,
        training: bool = False,
        bounds: Bounds | None = None,
    ) -> Iterator[Batch]:
        """Yield the samples of a split in an order; ready-made batches come in their own.

        Args:
            split: where the samples are.
            order: positions in it.
            draw: the epoch's augmentation; None for none.
            digest: whether to digest their content too.
            training: whether a single image left over joins the batch before.
            bounds: where the order is cut; each cut then gives a batch, even an empty one.

        Raises:
            DataError: an image cannot be read and `bad_images` is `error`.
        """
        if split.steps(self.batch_size) is not None:
            for inputs, targets in split.batches():
                if len(inputs):
                    self._check_first(inputs)
                yield Batch(inputs, targets, torch.arange(len(targets)))
            return
        if draw is None and split.draws:
            # A user's Dataset then draws the same each time, in whichever process.
            draw = Draw(None, seed=0, epoch=0)
        for batch in self._batches(split, order, draw, digest, training, bounds):
            for bad in batch.bad:
                if self.bad_images == "error":
                    hint = "remove it, or give --bad-images skip"
                    raise DataError(f"cannot read {bad.path}: {bad.reason}", hint)
                self.bad[bad.path] = bad.reason
            if len(batch) or bounds is not None:
                yield batch

    def _batches(
        self,
        split: Split,
        order: Sequence[int],
        draw: Draw | None,
        digest: bool,
        training: bool,
        bounds: Bounds | None,
    ) -> Iterator[Batch]:
        """Decode batches, or take them from the cache."""
        pinned = self.device.type == "cuda"
        threads, ahead = reading(self.device)

        def load(order: Sequence[int], bounds: Bounds) -> Iterator[Batch]:
            return load_batches(
                split,
                self.transform,
                order,
                self.batch_size,
                self.workers,
                pin_memory=pinned,
                draw=draw,
                bounds=bounds,
                digest=digest,
                threads=0 if self.workers else threads,
                ahead=ahead,
            )

        if bounds is None:
            bounds = batch_bounds(len(order), self.batch_size, training)
        cached = None
        if self.cache is not None and draw is None and not digest:
            cached = self.cache.split(split, self.transform.preprocess)
        if cached is None:
            return load(order, bounds)
        return cached.read(order, bounds, load, pinned)

    def _check_first(self, inputs: Tensor) -> None:
        """Refuse batches of a `DataLoader` that are made for another network.

        Raises:
            DataError: names the shape that this network takes.
        """
        try:
            check_shape(inputs[0], self.transform.preprocess)
        except DataError as error:
            message = f"an image of the DataLoader is not for this network: {error}"
            raise DataError(message) from error
