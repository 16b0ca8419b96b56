"""Several processes that train together, as `torchrun` starts them.

Each takes its part of every batch and of every split. Gradients are exchanged by torch's
`DistributedDataParallel`, and all else that the processes tell each other goes through `Ranks`.
The first of them alone writes and speaks.
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

from zoo.errors import EnvironmentProblem, UsageError, ZooError
from zoo.tasks.base import Metric
from zoo.terminal import told_by_torchrun

Item = TypeVar("Item")

# Batch norm cannot train on one image, so that no process gets a single one.
LEAST = 2


class OtherProcess(EnvironmentProblem):
    """Another process of the training ended, and has said why itself."""

    told = True

    def __init__(self) -> None:
        super().__init__("another process of this training ended", "what it said is why")


def shard(positions: Sequence[Item], rank: int, world: int) -> Sequence[Item]:
    """Return a process's part of some positions; the parts, in order of the ranks, are the whole.

    Parts differ by at most one, but that where there are few, none is of a single position and
    the last ranks get nothing.
    """
    parts = max(min(world, len(positions) // LEAST), 1)
    if rank >= parts:
        return positions[:0]
    return positions[len(positions) * rank // parts : len(positions) * (rank + 1) // parts]


@dataclass(frozen=True)
class Ranks:
    """A process among those that train together.

    Args:
        rank: from 0; the first writes and speaks.
        world: how many there are.
        local: which of those on this machine.
    """

    rank: int = 0
    world: int = 1
    local: int = 0

    @property
    def several(self) -> bool:
        """Whether there are others."""
        return self.world > 1

    def share(self, positions: Sequence[Item]) -> Sequence[Item]:
        """Return this process's part of some positions."""
        return shard(positions, self.rank, self.world)

    def share_batches(
        self, order: Sequence[int], bounds: Sequence[tuple[int, int]]
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """Return this process's part of each batch, as an order and where it is cut.

        A part may be empty, so that each process takes as many steps as the others.
        """
        mine: list[int] = []
        cuts: list[tuple[int, int]] = []
        for first, last in bounds:
            part = self.share(order[first:last])
            cuts.append((len(mine), len(mine) + len(part)))
            mine.extend(part)
        return mine, cuts

    def sum(self, number: int) -> int:
        """Return the sum of a number over all processes."""
        if not self.several:
            return number
        total = torch.tensor(number)
        torch.distributed.all_reduce(total)
        return int(total)

    def gather(self, thing: Item) -> list[Item]:
        """Return what each process gave, in order of the ranks."""
        if not self.several:
            return [thing]
        things: list[Any] = [None] * self.world
        torch.distributed.all_gather_object(things, thing)
        return things

    def from_first(self, thing: Item | None) -> Item:
        """Return what the first process gave; the others give None."""
        things = [thing]
        if self.several:
            torch.distributed.broadcast_object_list(things, src=0)
        return things[0]  # type: ignore[return-value]

    def merge(self, metric: Metric) -> Metric:
        """Merge the metrics of all processes into each, and return this process's."""
        if not self.several:
            return metric
        for tensor in metric.sums.values():
            torch.distributed.all_reduce(tensor)
        for name, items in metric.rows.items():
            metric.rows[name] = [item for part in self.gather(items) for item in part]
        return metric

    def average(self, buffers: Sequence[Tensor]) -> None:
        """Make batch norm's statistics those of all processes together."""
        for tensor in buffers if self.several else ():
            if tensor.is_floating_point():
                torch.distributed.all_reduce(tensor)
                tensor /= self.world
            else:
                torch.distributed.broadcast(tensor, src=0)


SINGLE = Ranks()


@cache
def join() -> Ranks:
    """Join the processes that `torchrun` started with this one; alone without it.

    Raises:
        OtherProcess: not all of them came.
    """
    if not told_by_torchrun():
        return SINGLE
    ranks = Ranks(*(int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")))
    # Both, so that what is counted on the CPU keeps no GPU waiting.
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    if torch.cuda.is_available() and ranks.local < torch.cuda.device_count():
        torch.cuda.set_device(ranks.local)
    with others_ending():
        torch.distributed.init_process_group(backend)
    atexit.register(_leave)
    return ranks


_ended_badly: list[bool] = []


def ended_badly() -> bool:
    """Whether this process, one of several, met an error or the end of another."""
    return bool(_ended_badly) and torch.distributed.is_initialized()


def _leave() -> None:
    # After an error the others may be gone, and torch would wait for them.
    if not _ended_badly and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


@contextmanager
def others_ending() -> Iterator[None]:
    """Tell the end of another process from an error of this one's.

    Raises:
        OtherProcess: inside the block torch found another process gone.
    """
    try:
        yield
    except BaseException as error:
        _ended_badly.append(True)
        cause: BaseException | None = error
        while cause is not None:
            said = isinstance(cause, RuntimeError) and "gloo" in str(cause)
            if said or isinstance(cause, torch.distributed.DistError):
                raise OtherProcess from error
            cause = cause.__cause__
        raise


@contextmanager
def together(ranks: Ranks) -> Iterator[None]:
    """Let all processes learn whether a block failed on any; what all say alike, one says.

    Raises:
        OtherProcess: this one has nothing of its own to say.
    """
    if not ranks.several:
        yield
        return
    with others_ending():
        failed: ZooError | None = None
        try:
            yield
        except ZooError as error:
            failed = error
        said = ranks.gather(None if failed is None else str(failed))
        if failed is not None and str(failed) not in said[: ranks.rank]:
            raise failed
        if any(text is not None for text in said):
            # `torchrun` ends all as soon as one has ended, so the one that speaks goes first: its
            # going breaks off this wait.
            with suppress(RuntimeError):
                torch.distributed.barrier()
            raise OtherProcess from failed


def own_device(device: torch.device, ranks: Ranks) -> torch.device:
    """Return the device of this process: where there are several, each has a GPU of its own.

    Raises:
        UsageError: one GPU is named for all.
        EnvironmentProblem: there are fewer GPUs than processes.
    """
    if not ranks.several or device.type == "cpu":
        return device
    if device.type != "cuda":
        raise UsageError(f"torchrun on {device}", "give --device cuda or cpu")
    if device.index is not None:
        message = f"--device {device} for {ranks.world} processes"
        raise UsageError(message, "give --device cuda; each process takes its own")
    there = torch.cuda.device_count()
    if ranks.local >= there:
        message = f"process {ranks.local + 1} on this machine finds {there} GPU" + "s" * (there > 1)
        raise EnvironmentProblem(message, f"give torchrun --nproc-per-node {there}")
    return torch.device("cuda", ranks.local)
