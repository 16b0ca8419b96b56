"""Load batches of a split, with the same bytes in the same order for any number of workers.

Threads scale as well as processes, since Pillow and torch release the GIL while they decode and
resize, and need no start-up or transfer. Processes are for datasets of users, which may not be
thread-safe, and for augmentation, since torch has one generator for all threads.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.data.augment import Draw
from zoo.data.batch import Batch, common_dtype, concatenate, images_in
from zoo.data.dataset import BadImage, Sample, SampleTransform, read_sample
from zoo.data.split import Split
from zoo.data.threads import prefetch, read_in_threads
from zoo.data.workers import FEWER_WORKERS, read_in_workers, worker_died
from zoo.errors import EnvironmentProblem, UsageError

__all__ = [
    "BadImage",
    "Batch",
    "batch_bounds",
    "can_use_threads",
    "load_batches",
    "worker_problem",
]

# Batches that threads prefetch.
AHEAD = 2
# Images that a process reads in one piece: the first batch is complete the sooner.
PART = 32


def batch_bounds(count: int, batch_size: int, training: bool = True) -> list[tuple[int, int]]:
    """Return start and end position of each batch of `count` images.

    Batch norm cannot train on one image, so in training a single remaining image is added to the
    batch before.

    Raises:
        UsageError: the batch size is below 1.
    """
    if batch_size < 1:
        raise UsageError(f"a batch of {batch_size} images is not possible", "1 is the least")
    starts = list(range(0, count, batch_size))
    if training and len(starts) > 1 and batch_size > 1 and count - starts[-1] == 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], count], strict=True)) if starts else []


def load_batches(
    split: Split,
    transform: SampleTransform,
    order: Sequence[int],
    batch_size: int,
    workers: int = 0,
    pin_memory: bool = False,
    draw: Draw | None = None,
    digest: bool = False,
    training: bool = False,
    threads: int = 0,
    ahead: int = AHEAD,
    bounds: Sequence[tuple[int, int]] | None = None,
) -> Iterator[Batch]:
    """Load samples of a split, batch by batch.

    Args:
        split: to read from.
        transform: from image and target to tensors; `normalize` is applied later.
        order: positions in the split.
        batch_size: samples per batch, see `batch_bounds`.
        workers: number of reader processes; 0 reads in this one.
        pin_memory: whether the batches are in page-locked memory, for copying to a device; a thread
            then combines them while the caller computes.
        draw: the epoch's augmentation; None for none.
        digest: whether to digest the content too.
        training: whether a single remaining image is added to the batch before.
        threads: reader threads in place of workers; not used unless `can_use_threads`.
        ahead: number of batches that threads prefetch.
        bounds: start and end of each batch in the order, which may be equal; None for
            `batch_bounds`.

    Yields:
        Every position of the order once, as a sample or as a bad image.

    Raises:
        EnvironmentProblem: a worker cannot be started, or was killed.
        UsageError: processes are spawned, and cannot import the main module.
    """
    if bounds is None:
        bounds = batch_bounds(len(order), batch_size, training)
    batches = [list(order[first:last]) for first, last in bounds]
    source = SplitBatches(split, transform, draw, digest)
    with ExitStack() as stack:
        loaded: Iterator[Batch] = map(source.read, batches)
        if workers:
            parts = [part for batch in batches for part in _parts(batch)]
            read = stack.enter_context(closing(read_in_workers(source, parts, workers)))
            loaded = (
                concatenate(itertools.islice(read, len(_parts(batch))), len(batch), pin_memory)
                for batch in batches
            )
        elif threads and can_use_threads(split, draw):
            samples = read_in_threads(source.sample, batches, threads, ahead)
            loaded = map(source.collate, stack.enter_context(closing(samples)))
        if pin_memory:
            loaded = stack.enter_context(closing(prefetch(map(Batch.pin_memory, loaded))))
        yield from loaded


def _parts(batch: list[int]) -> list[list[int]]:
    """Return the parts of a batch that different processes read."""
    return [batch[first : first + PART] for first in range(0, len(batch), PART)] or [batch]


@dataclass(frozen=True)
class SplitBatches:
    """Reads batches of a split; picklable, for worker processes.

    Args:
        split: to read from.
        transform: from image and target to tensors.
        draw: the epoch's augmentation; None for none.
        digest: whether to digest the content too.
    """

    split: Split
    transform: SampleTransform
    draw: Draw | None = None
    digest: bool = False

    @property
    def image_bytes(self) -> int:
        """Largest size of an image as a tensor: of floats."""
        preprocess = self.transform.preprocess
        return 4 * preprocess.channels * preprocess.height * preprocess.width

    def sample(self, index: int) -> Sample | BadImage:
        """Read a sample by its position in the split."""
        return read_sample(self.split, self.transform, index, self.draw, self.digest)

    def read(self, indices: Sequence[int], memory: Tensor | None = None) -> Batch:
        """Read the samples of a batch, its images into memory where they fit."""
        return self.collate([self.sample(index) for index in indices], memory)

    def collate(self, items: Sequence[Sample | BadImage], memory: Tensor | None = None) -> Batch:
        """Combine samples to a batch, with its images in memory where they fit."""
        preprocess = self.transform.preprocess
        samples = [item for item in items if isinstance(item, Sample)]
        shape = (len(samples), preprocess.height, preprocess.width, preprocess.channels)
        images = images_in(memory, common_dtype(sample.input for sample in samples), shape)
        for row, sample in zip(images.numpy(), samples, strict=True):
            # Not by torch, whose threads would then wait for more work, on cores that others need.
            row[...] = sample.input.detach().cpu().permute(1, 2, 0).numpy()
        return Batch(
            inputs=images.permute(0, 3, 1, 2),
            targets=self.transform.collate([sample.target for sample in samples]),
            indices=torch.tensor([sample.index for sample in samples], dtype=torch.int64),
            bad=tuple(item for item in items if isinstance(item, BadImage)),
            digests=tuple(sample.digest for sample in samples if sample.digest),
            incomplete=tuple(sample.incomplete for sample in samples if sample.incomplete),
        )


def can_use_threads(split: Split, draw: Draw | None) -> bool:
    """Whether several threads may read a split concurrently.

    A user's `Dataset` may not be thread-safe, and augmentation draws from torch's one generator.
    """
    return draw is None and split.thread_safe


def worker_problem(error: RuntimeError) -> EnvironmentProblem | None:
    """Translate an error of torch's for a dead worker of a user's loader; None for any other.

    torch raises it from a signal handler, so it can occur anywhere in the main process.
    """
    text = str(error)
    if match := re.search(r"DataLoader worker \(pid(?:\(s\))? [\d, ]+\) ([^.\n]*)", text):
        return worker_died(match.group(1).strip())
    if "shared memory" in text or "file </torch_" in text:
        message = "there is no shared memory left for the processes that read images"
        return EnvironmentProblem(message, FEWER_WORKERS)
    return None
