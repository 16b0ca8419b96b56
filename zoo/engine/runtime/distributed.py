"""Distributed training in processes started by `torchrun`.

Each process computes a shard of every batch and of every split. Gradients are reduced by torch's
`DistributedDataParallel`; all other communication is in `Ranks`. Only rank 0 writes files and
output.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import torch
from torch import Tensor

from zoo.errors import EnvironmentProblem, UsageError, ZooError, counted
from zoo.tasks.base import Metric
from zoo.terminal import started_by_torchrun

Item = TypeVar("Item")
Number = TypeVar("Number", int, float)

# Batch norm cannot train on one image, so no shard has a single one.
MIN_SHARD = 2


class OtherProcessEnded(EnvironmentProblem):
    """Another process of the training ended, and has reported the reason itself."""

    reported = True

    def __init__(self) -> None:
        super().__init__("another process of this training ended", "see its message for the reason")


def shard(positions: Sequence[Item], rank: int, world: int) -> Sequence[Item]:
    """Return a process's shard of some positions; the shards in order of rank are all positions.

    Sizes differ by at most one. Where there are too few positions for shards of two, the last ranks
    get empty shards.
    """
    shards = max(min(world, len(positions) // MIN_SHARD), 1)
    if rank >= shards:
        return positions[:0]
    return positions[len(positions) * rank // shards : len(positions) * (rank + 1) // shards]


@dataclass(frozen=True)
class Ranks:
    """The rank of this process, and collective operations on plain Python data.

    Args:
        rank: of this process; rank 0 writes files and output.
        world: number of processes.
        local: rank among the processes of this machine.
    """

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def distributed(self) -> bool:
        """Whether there is more than one process."""
        return self.world > 1

    def shard(self, positions: Sequence[Item]) -> Sequence[Item]:
        """Return this process's shard of some positions."""
        return shard(positions, self.rank, self.world)

    def shard_batches(
        self, order: Sequence[int], bounds: Sequence[tuple[int, int]]
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """Return this process's shard of each batch, as an order and the bounds of its batches.

        A shard may be empty, so that all processes take the same number of steps.
        """
        own: list[int] = []
        own_bounds: list[tuple[int, int]] = []
        for first, last in bounds:
            part = self.shard(order[first:last])
            own_bounds.append((len(own), len(own) + len(part)))
            own.extend(part)
        return own, own_bounds

    def sum(self, number: Number) -> Number:
        """Return the sum of a number over all processes."""
        if not self.distributed:
            return number
        total = torch.tensor(
            number, dtype=torch.int64 if isinstance(number, int) else torch.float64
        )
        torch.distributed.all_reduce(total)
        return type(number)(total.item())

    def gather(self, value: Item) -> list[Item]:
        """Return the values of all processes, in order of rank."""
        if not self.distributed:
            return [value]
        values: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(values, value)
        return values

    def broadcast(self, value: Item | None) -> Item:
        """Broadcast the value of rank 0; the others pass None."""
        values = [value]
        if self.distributed:
            torch.distributed.broadcast_object_list(values, src=0)
        return values[0]  # type: ignore[return-value]

    def merge(self, metric: Metric) -> Metric:
        """Reduce the metric over all processes, in place, and return it."""
        if not self.distributed:
            return metric
        for tensor in metric.sums.values():
            torch.distributed.all_reduce(tensor)
        for name, items in metric.rows.items():
            metric.rows[name] = [item for part in self.gather(items) for item in part]
        if metric.samples is not None:
            recorded = self.gather(metric.samples.tensors())
            metric.samples.parts = [part for part in recorded if part]
        return metric

    def average_buffers(self, buffers: Sequence[Tensor]) -> None:
        """Average the statistics of batch norm over all processes, in place."""
        for tensor in buffers if self.distributed else ():
            if tensor.is_floating_point():
                torch.distributed.all_reduce(tensor)
                tensor /= self.world
            else:
                torch.distributed.broadcast(tensor, src=0)


SINGLE = Ranks()


@cache
def join() -> Ranks:
    """Initialise the process group of `torchrun`; without it, return a single rank.

    Raises:
        OtherProcessEnded: another process did not join.
    """
    if not started_by_torchrun():
        return SINGLE
    ranks = Ranks(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    # Both, so that collectives on CPU tensors do not synchronize with a GPU.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if torch.cuda.is_available() and ranks.local < torch.cuda.device_count():
        torch.cuda.set_device(ranks.local)
    with detect_ended_processes():
        torch.distributed.init_process_group(backend)
    atexit.register(_leave)
    return ranks


_broken: list[bool] = []


def process_group_broken() -> bool:
    """Whether an error in this process, or the end of another, broke the process group."""
    return bool(_broken) and torch.distributed.is_initialized()


def _leave() -> None:
    # After an error the others may have ended, and torch would wait for them.
    if not _broken and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextmanager
def detect_ended_processes() -> Iterator[None]:
    """Raise the end of another process as `OtherProcessEnded`, and errors of this one unchanged.

    Raises:
        OtherProcessEnded: a collective operation in the block failed as another process ended.
    """
    try:
        yield
    except BaseException as error:
        _broken.append(True)
        cause: BaseException | None = error
        while cause is not None:
            gloo_error = isinstance(cause, RuntimeError) and "gloo" in str(cause)
            if gloo_error or isinstance(cause, torch.distributed.DistError):
                raise OtherProcessEnded from error
            cause = cause.__cause__
        raise


@contextmanager
def fail_together(ranks: Ranks) -> Iterator[None]:
    """Fail in all processes where the block fails in any; a common error is raised by one.

    Raises:
        OtherProcessEnded: the block failed in another process, or with the same error in a
            lower rank.
    """
    if not ranks.distributed:
        yield
        return
    with detect_ended_processes():
        failed: ZooError | None = None
        try:
            yield
        except ZooError as error:
            failed = error
        messages = ranks.gather(None if failed is None else str(failed))
        if failed is not None and str(failed) not in messages[: ranks.rank]:
            raise failed
        if any(message is not None for message in messages):
            # `torchrun` ends all processes as soon as one has ended, so the process that reports
            # the error must end first; its end breaks this barrier.
            with suppress(RuntimeError):
                torch.distributed.barrier()
            raise OtherProcessEnded from failed


def process_device(device: torch.device, ranks: Ranks) -> torch.device:
    """Return the device of this process: a GPU per process in distributed training.

    Raises:
        UsageError: one GPU is requested for all processes.
        EnvironmentProblem: there are fewer GPUs than processes.
    """
    if not ranks.distributed or device.type == "cpu":
        return device
    if device.type != "cuda":
        raise UsageError(f"torchrun on {device}", "give --device cuda or cpu")
    if device.index is not None:
        message = f"--device {device} for {ranks.world} processes"
        raise UsageError(message, "give --device cuda; each process takes its own")
    count = torch.cuda.device_count()
    if ranks.local >= count:
        message = f"process {ranks.local + 1} on this machine finds {counted(count, 'GPU')}"
        raise EnvironmentProblem(message, f"give torchrun --nproc-per-node {count}")
    return torch.device("cuda", ranks.local)
