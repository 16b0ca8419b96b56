"""Batches of a split, the same bytes in the same order whoever reads them, and how many.

Threads read as well as processes do: Pillow lets others run while it decodes and resizes. They
start at once, and what they read need not travel. Processes are for code that is somebody else's,
and for what draws at random, since torch has one generator for all threads.
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

# How many batches torch's processes read before they are asked for; threads may as well.
AHEAD = 2


@dataclass(frozen=True)
class Batch:
    """Samples that go through the network together.

    Args:
        inputs: `[n, channels, height, width]` in channels-last memory order: uint8, or floats that
            are normalized already.
        targets: `[n, ...]`, as the task collates them.
        indices: `[n]`, int64: each sample's position in the split.
        bad: those that could not be read, and are not in the tensors; `n` is 0 where all are.
        digests: sha256 of each image's content; empty where they were not requested.
    """

    inputs: Tensor
    targets: Tensor
    indices: Tensor
    bad: tuple[BadImage, ...] = ()
    digests: tuple[bytes, ...] = ()

    def __len__(self) -> int:
        return len(self.indices)

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory; torch's loader calls this."""
        return replace(
            self,
            inputs=self.inputs.pin_memory(),
            targets=self.targets.pin_memory(),
            indices=self.indices.pin_memory(),
        )


def batch_bounds(count: int, batch_size: int, training: bool = True) -> list[tuple[int, int]]:
    """Cut `count` images into batches, each given as its first position and the one past its last.

    Batch norm cannot train on one image, so in training a single one left over joins the batch
    before.

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
    """Read images of a split, batch by batch.

    Args:
        split: where the images are.
        transform: makes tensors of each sample; `normalize` comes later.
        order: positions in the split.
        batch_size: images in a batch, as `batch_bounds` cuts them.
        workers: processes that read; 0 reads in this one.
        pin_memory: whether the batches are in page-locked memory, for copying to a device.
        draw: the epoch's augmentation; None for none.
        digest: whether to digest their content too.
        training: whether a single image left over joins the batch before.
        threads: of this process that read, in place of workers; where `can_use_threads` says no,
            it reads without them.
        ahead: how many batches threads read before they are asked for.
        bounds: where the order is cut into batches, which may be empty; None for `batch_bounds`.

    Yields:
        Every position of the order once, as an image or as a bad one.

    Raises:
        EnvironmentProblem: a worker was killed, or there is no memory to share with it.
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
    """Whether several threads of one process may read a split at once.

    A `Dataset` of the user's own may not bear it, and what is drawn comes from torch's generator,
    of which there is one.
    """
    return draw is None and split.thread_safe


def _read_in_threads(
    read: Callable[[int], Sample | BadImage],
    batches: Sequence[Sequence[int]],
    threads: int,
    ahead: int,
) -> Iterator[list[Sample | BadImage]]:
    """Read batches, so many of them before they are asked for."""
    waiting: deque[list[Future[Sample | BadImage]]] = deque()
    rest = iter(batches)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="zoo-read")

    def submit(most: int) -> None:
        for batch in itertools.islice(rest, most - len(waiting)):
            waiting.append([pool.submit(read, index) for index in batch])

    try:
        for _ in batches:
            submit(max(ahead, 1))
            found = [future.result() for future in waiting.popleft()]
            submit(ahead)
            yield found
    finally:
        # Whoever stops early waits for the images that are being read, and for no others.
        pool.shutdown(cancel_futures=True)


def _read_in_processes(
    dataset: SplitDataset, batches: Sequence[list[int]], workers: int, pin_memory: bool
) -> Iterator[Batch]:
    """Read batches in processes of their own, or in this one where there are none.

    Raises:
        EnvironmentProblem: a worker was killed, or there is no memory to share with it.
    """
    loader = DataLoader(
        dataset,
        batch_sampler=batches,
        collate_fn=partial(_collate, transform=dataset.transform),
        num_workers=workers,
        pin_memory=pin_memory,
        worker_init_fn=_start_worker,
        # Or the loader would draw from the global generator, and dropout with it.
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
        # A batch was on its way when the process that held it was killed.
        if not workers:
            raise
        raise _dead_worker("exited") from error


def worker_problem(error: RuntimeError) -> EnvironmentProblem | None:
    """Say what torch means when a worker dies; None for any other error.

    torch raises it from a signal handler, so it can arrive at whatever the main process is doing
    outside of `load_batches` too.
    """
    text = str(error)
    if found := re.search(r"DataLoader worker \(pid(?:\(s\))? [\d, ]+\) ([^.\n]*)", text):
        return _dead_worker(found.group(1).strip())
    if "shared memory" in text or "file </torch_" in text:
        message = "there is no shared memory left for the processes that read images"
        return EnvironmentProblem(message, FEWER_WORKERS)
    return None


def _dead_worker(fate: str) -> EnvironmentProblem:
    return EnvironmentProblem(f"a process that reads images died: it {fate}", FEWER_WORKERS)


def _start_worker(_: int) -> None:
    # On Ctrl-C the main process decides, and may want the batch that is being read. torch itself
    # holds workers to one thread, and ends them with their parent.
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
    )
