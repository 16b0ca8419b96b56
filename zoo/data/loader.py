"""Load batches of a split, with the same bytes in the same order for any number of workers.

Threads scale as well as processes, since Pillow releases the GIL while it decodes and resizes, and
need no start-up or transfer. Processes are for datasets of users, which may not be thread-safe,
and for augmentation, since torch has one generator for all threads.
"""

from __future__ import annotations

import itertools
import re
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from zoo.data.augment import Draw
from zoo.data.dataset import BadImage, Sample, SampleTransform, SplitDataset, read_sample
from zoo.data.split import Split
from zoo.errors import EnvironmentProblem, UsageError

__all__ = [
    "BadImage",
    "Batch",
    "batch_bounds",
    "can_use_threads",
    "load_batches",
    "worker_problem",
]


FEWER_WORKERS = "free some memory, or use fewer workers, or 0"

# Batches to prefetch; torch's default for worker processes.
AHEAD = 2


@dataclass(frozen=True)
class Batch:
    """A batch of samples.

    Args:
        inputs: `[n, channels, height, width]` in channels-last memory format: uint8, or floats that
            are normalized already.
        targets: `[n, ...]`, as the task collates them.
        indices: `[n]`, int64: each sample's position in the split.
        bad: unreadable images, which are not in the tensors; `n` is 0 where all are.
        digests: sha256 of each image's content; empty unless requested.
        incomplete: paths of files that lack their last bytes.
    """

    inputs: Tensor
    targets: Tensor
    indices: Tensor
    bad: tuple[BadImage, ...] = ()
    digests: tuple[bytes, ...] = ()
    incomplete: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.indices)

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory; called by torch's loader."""
        return replace(
            self,
            inputs=self.inputs.pin_memory(),
            targets=self.targets.pin_memory(),
            indices=self.indices.pin_memory(),
        )


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
        pin_memory: whether the batches are in page-locked memory, for copying to a device.
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
        EnvironmentProblem: a worker was killed, or shared memory ran out.
    """
    if bounds is None:
        bounds = batch_bounds(len(order), batch_size, training)
    batches = [list(order[first:last]) for first, last in bounds]
    if threads and not workers and can_use_threads(split, draw):
        read = partial(read_sample, split, transform, digest=digest)
        for samples in _read_in_threads(read, batches, threads, ahead):
            batch = _collate(samples, transform)
            yield batch.pin_memory() if pin_memory else batch
        return
    yield from _read_in_processes(
        SplitDataset(split, transform, draw, digest), batches, workers, pin_memory
    )


def can_use_threads(split: Split, draw: Draw | None) -> bool:
    """Whether several threads may read a split concurrently.

    A user's `Dataset` may not be thread-safe, and augmentation draws from torch's one generator.
    """
    return draw is None and split.thread_safe


def _read_in_threads(
    read: Callable[[int], Sample | BadImage],
    batches: Sequence[Sequence[int]],
    threads: int,
    ahead: int,
) -> Iterator[list[Sample | BadImage]]:
    """Read batches in threads, prefetching `ahead` of them."""
    pending: deque[list[Future[Sample | BadImage]]] = deque()
    remaining = iter(batches)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="zoo-read")

    def submit(limit: int) -> None:
        for batch in itertools.islice(remaining, limit - len(pending)):
            pending.append([pool.submit(read, index) for index in batch])

    try:
        for _ in batches:
            submit(max(ahead, 1))
            samples = [future.result() for future in pending.popleft()]
            submit(ahead)
            yield samples
    finally:
        # A caller that stops early waits only for images that are being read.
        pool.shutdown(cancel_futures=True)


def _read_in_processes(
    dataset: SplitDataset, batches: Sequence[list[int]], workers: int, pin_memory: bool
) -> Iterator[Batch]:
    """Read batches in worker processes, or in this one without workers.

    Raises:
        EnvironmentProblem: a worker was killed, or shared memory ran out.
    """
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=partial(_collate, transform=dataset.transform),
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=_start_worker,
        # Without it the loader advances the global generator, which dropout draws from.
        generator=torch.Generator(),
    )
    try:
        yield from loader
    except RuntimeError as error:
        problem = worker_problem(error)
        if problem is None:
            raise
        raise problem from error
    except (ConnectionError, EOFError, FileNotFoundError) as error:
        # The worker was killed while it sent a batch.
        if not workers:
            raise
        raise _worker_died("exited") from error


def worker_problem(error: RuntimeError) -> EnvironmentProblem | None:
    """Translate torch's error for a dead worker; None for any other error.

    torch raises it from a signal handler, so it can occur anywhere in the main process, outside of
    `load_batches` too.
    """
    text = str(error)
    if match := re.search(r"DataLoader worker \(pid(?:\(s\))? [\d, ]+\) ([^.\n]*)", text):
        return _worker_died(match.group(1).strip())
    if "shared memory" in text or "file </torch_" in text:
        message = "there is no shared memory left for the processes that read images"
        return EnvironmentProblem(message, FEWER_WORKERS)
    return None


def _worker_died(cause: str) -> EnvironmentProblem:
    return EnvironmentProblem(f"a process that reads images died: it {cause}", FEWER_WORKERS)


def _start_worker(_: int) -> None:
    # Ctrl-C is handled by the main process, which may still need the batch that is being read.
    # torch limits workers to one thread, and ends them with their parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _collate(items: Sequence[Sample | BadImage], transform: SampleTransform) -> Batch:
    preprocess = transform.preprocess
    samples = [item for item in items if isinstance(item, Sample)]
    shape = (len(samples), preprocess.height, preprocess.width, preprocess.channels)
    images = torch.empty(shape, dtype=samples[0].input.dtype if samples else torch.uint8)
    for row, sample in zip(images, samples, strict=True):
        row.copy_(sample.input.permute(1, 2, 0))
    return Batch(
        inputs=images.permute(0, 3, 1, 2),
        targets=transform.collate([sample.target for sample in samples]),
        indices=torch.tensor([sample.index for sample in samples], dtype=torch.int64),
        bad=tuple(item for item in items if isinstance(item, BadImage)),
        digests=tuple(sample.digest for sample in samples if sample.digest),
        incomplete=tuple(sample.incomplete for sample in samples if sample.incomplete),
    )
