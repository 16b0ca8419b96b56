"""Checkpoints of a training: when one is due, its files, and the newest whole one."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from zoo.engine.runtime.distributed import SINGLE, Ranks
from zoo.engine.runtime.network import Network
from zoo.engine.runtime.signals import Interrupts
from zoo.engine.training.snapshot import Snapshot
from zoo.engine.training.state import TrainState
from zoo.errors import WeightsError, unknown_format
from zoo.files import (
    canonical_json,
    remove_folder,
    verify_folder,
    write_bytes,
    writing_folder,
)
from zoo.tensorfile import read_file, read_tensors, tensor_bytes

# The plan in the folder of checkpoints, and the prefixes of other names.
STORED, CHECKPOINT, DAMAGED = "plan.json", "checkpoint-", "damaged-"
TENSORS, STATE, BATCH = "state.safetensors", "state.json", "diverged-batch.safetensors"
FORMAT = 1
# Paths may have bytes that are not valid text.
ESCAPE = "surrogateescape"

# Without `--checkpoint-every`: seconds between two at most, and at least; and how many times the
# seconds that one takes pass before the next, so that they take 2 % of the training.
LONGEST, SHORTEST, SHARE = 60.0, 1.0, 50


@dataclass(frozen=True)
class Cadence:
    """When a checkpoint is due.

    Args:
        every: seconds between two within an epoch, which then ends with one; None for one after
            each epoch and each minute, unless they would take more than 2 % of the training.
        keep: number of checkpoints to keep; with 0, the last one is removed after the training.
    """

    every: float | None = None
    keep: int = 1

    def due(self, waited: float, cost: float, epoch_ended: bool) -> bool:
        """Whether one is due.

        Args:
            waited: seconds since the last one, or since the start.
            cost: seconds that the last one took; 0 before the first.
            epoch_ended: whether an epoch has just ended.
        """
        if self.every is not None:
            return epoch_ended or waited >= self.every
        return waited >= max(SHARE * cost, SHORTEST if epoch_ended else LONGEST)


def _no_check() -> None:
    pass


class Checkpoints:
    """Writes the checkpoints of a training, and stops it after one on a signal.

    Args:
        folder: of the checkpoints.
        plan: of the training, as data for JSON.
        state: of the training.
        network: that is trained.
        cadence: when one is due.
        interrupts: signals received.
        write_best: writes the best epoch as a model file; called before a checkpoint if there is a
            better one than at the last.
        started: start of the training in this process, by `time.perf_counter`.
        store: writes what a training is resumed from; called before a checkpoint where it is
            missing, since the folder was removed or renamed.

    Attributes:
        number: of those written by this process.
    """

    def __init__(
        self,
        folder: Path,
        plan: Mapping[str, Any],
        state: TrainState,
        network: Network,
        cadence: Cadence,
        interrupts: Interrupts,
        write_best: Callable[[], None],
        started: float,
        store: Callable[[], None] = _no_check,
    ) -> None:
        self.folder = folder
        self.plan = plan
        self.state = state
        self.network = network
        self.cadence = cadence
        self.interrupts = interrupts
        self.write_best = write_best
        self.started = started
        self.store = store
        self.earlier_seconds = state.seconds
        self.number = 0
        self.cost = 0.0
        self.last = time.perf_counter()
        self.written = state.best.updates
        self.position = self._position()

    def after_step(self, ranks: Ranks = SINGLE, check: Callable[[], None] = _no_check) -> None:
        """Write a checkpoint if one is due, or a signal was received, and stop on a signal.

        Args:
            ranks: of the processes that share each batch.
            check: called before; raises where the state is not worth saving.

        Raises:
            KeyboardInterrupt: or whatever else the signal's handler raises.
        """
        self._act(ranks, check, epoch_ended=False)

    def after_epoch(self, ranks: Ranks = SINGLE) -> None:
        """Write a checkpoint after an epoch; as `after_step`."""
        self._act(ranks, _no_check, epoch_ended=True)

    def finish(self, ranks: Ranks = SINGLE) -> None:
        """Save the end of the training, before its test split is evaluated, and for more epochs.

        A solved head is not saved: it is solved again.
        """
        if self.state.optimizer is not None and self.position != self._position():
            self.write(ranks)

    def _position(self) -> tuple[int, ...]:
        state = self.state
        return state.phase, state.epoch, state.step

    def _act(self, ranks: Ranks, check: Callable[[], None], epoch_ended: bool) -> None:
        received = self.interrupts.pending
        waited = time.perf_counter() - self.last
        due = not ranks.rank and self.cadence.due(waited, self.cost, epoch_ended)
        if ranks.distributed:
            # Any process may have received a signal; the clock is that of rank 0.
            flags = ranks.sum(2 * received + due)
            received, due = flags > 1, bool(flags % 2)
        if received or due:
            check()
            self.write(ranks)
        if received:
            self.interrupts.raise_received()
            raise KeyboardInterrupt  # another process received the signal

    def save_batch(self, tensors: dict[str, Tensor]) -> str:
        """Write a batch that training diverged on, and return the path."""
        path = self.folder / BATCH
        write_bytes(path, tensor_bytes(tensors))
        return str(path)

    def write(self, ranks: Ranks = SINGLE) -> None:
        """Write a checkpoint, then remove those beyond the number to keep.

        Raises:
            EnvironmentProblem: the system refuses; earlier ones are unchanged.
        """
        begun = time.perf_counter()
        state = self.state
        state.seconds = self.earlier_seconds + begun - self.started
        snapshot = Snapshot.take(state, self.network, ranks)
        if not ranks.rank:
            if state.best.updates != self.written:
                self.write_best()
                self.written = state.best.updates
            self._write(snapshot)
        self.number += 1
        self.position = self._position()
        self.last = time.perf_counter()
        self.cost = self.last - begun

    def _write(self, snapshot: Snapshot) -> None:
        if not (self.folder / STORED).exists():
            self.store()
        earlier = list_checkpoints(self.folder)
        number = earlier[-1][0] + 1 if earlier else 1
        plain = {"format": FORMAT, "plan": self.plan, **snapshot.plain}
        with writing_folder(self.folder / f"{CHECKPOINT}{number:06}") as folder:
            folder.write(TENSORS, tensor_bytes(snapshot.tensors))
            folder.write(STATE, canonical_json(plain).encode(errors=ESCAPE))
        keep = max(self.cadence.keep, 1)
        remove_checkpoints(earlier[: max(len(earlier) + 1 - keep, 0)])


@contextmanager
def deferring_signals(checkpoints: Checkpoints | None) -> Iterator[None]:
    """Defer signals in a block, for `after_step` and `after_epoch` to act on."""
    if checkpoints is None:
        yield
        return
    interrupts = checkpoints.interrupts
    interrupts.deferring = True
    try:
        yield
    finally:
        interrupts.deferring = False


@contextmanager
def interruptible(checkpoints: Checkpoints | None, ranks: Ranks = SINGLE) -> Iterator[None]:
    """Let a signal interrupt a block that does not change the state, which is saved first.

    Several processes have to stop together, so in those signals are deferred.
    """
    if checkpoints is None or ranks.distributed:
        yield
        return
    interrupts = checkpoints.interrupts
    interrupts.deferring = False
    try:
        yield
    except Exception:
        raise
    except BaseException:
        checkpoints.write(ranks)
        raise
    finally:
        interrupts.deferring = True


def remove_checkpoints(checkpoints: Iterable[tuple[int, Path]]) -> None:
    """Remove checkpoints, as listed by `list_checkpoints`."""
    for _, path in checkpoints:
        # One that stays takes space only.
        with suppress(OSError):
            remove_folder(path)


def list_checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """Return number and path of each checkpoint, the oldest first."""
    numbered = []
    for path in folder.glob(f"{CHECKPOINT}*"):
        number = path.name.removeprefix(CHECKPOINT)
        if number.isdecimal() and path.is_dir():
            numbered.append((int(number), path))
    return sorted(numbered)


def newest_checkpoint(folder: Path, notice: Callable[[str], None]) -> Snapshot | None:
    """Read the newest whole checkpoint; None if there is none at all.

    Damaged ones are moved aside, to `damaged-N` beside it.

    Args:
        folder: of the checkpoints.
        notice: called with the name of each damaged one, and what is wrong with it.

    Raises:
        WeightsError: all are damaged.
    """
    damaged = []
    for number, path in reversed(list_checkpoints(folder)):
        try:
            return read_checkpoint(path)
        except WeightsError as error:
            aside = move_aside(path, folder / f"{DAMAGED}{number:06}")
            notice(f"{error.message}; moved to {aside}")
            damaged.append(aside.name)
    if damaged:
        message = f"all checkpoints in {folder} are damaged: {', '.join(reversed(damaged))}"
        raise WeightsError(message, "train anew, in another folder")
    return None


def read_checkpoint(path: Path) -> Snapshot:
    """Read a checkpoint.

    Raises:
        WeightsError: a file is missing or damaged, or its format is not supported.
    """
    digests = verify_folder(path)
    data, _ = read_file(path / STATE, digests[STATE])
    try:
        plain = json.loads(data.decode(errors=ESCAPE))
        version = plain.pop("format")
    except (ValueError, KeyError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{path / STATE} is damaged: {error}") from error
    if version != FORMAT:
        raise unknown_format(path, version, FORMAT)
    return Snapshot(read_tensors(path / TENSORS, digests[TENSORS]).tensors, plain)


def move_aside(path: Path, target: Path) -> Path:
    """Rename a folder, to a name with a number if that exists, and return the path."""
    for number in itertools.count(1):
        free = target if number == 1 else target.with_name(f"{target.name}-{number}")
        if not free.exists():
            path.rename(free)
            return free
    raise AssertionError("unreachable: itertools.count does not end")
