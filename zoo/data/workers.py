"""Read batches in worker processes, through one pipe for each.

torch's `DataLoader` passes batches through shared memory, semaphores and a thread that drops what
it cannot send, so a small `/dev/shm`, as in Docker, stops it for ever. A pipe needs none of these,
and neither does the anonymous memory that a forked worker shares with the reader, for its images.
A worker has the only other end of its pipe, so the reader sees at once that it has ended.
"""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import pickle
import random
import signal
import sys
import traceback
from collections.abc import Generator, Iterator, Sequence
from mmap import mmap
from multiprocessing.connection import Connection
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from zoo.data.batch import Batch, receive_batch, send_batch
from zoo.errors import EnvironmentProblem, UsageError, ZooError, one_line

FEWER_WORKERS = "free some memory, or use fewer workers, or 0"
MAIN_GUARD = 'start it under `if __name__ == "__main__":` in the script, or use 0 workers'

ENDED = "it ended while it imported the main module"

# Batches of a worker at most: ready, read by the main process, or being read.
BUFFERS = 3
# Seconds for a worker to end by itself, before it is killed.
GRACE = 2.0


class Dataset(Protocol):
    """Reads batches by the positions of their samples; picklable where processes are spawned."""

    @property
    def image_bytes(self) -> int:
        """Largest size of an image as a tensor."""
        ...

    def read(self, indices: Sequence[int], memory: Tensor | None = None) -> Batch:
        """Read a batch, its images into memory where they fit."""
        ...


def start_method() -> str:
    """Return how processes that read are started: as the program has set it, else forked on Linux.

    From 3.14 on, Python does not fork there by default. Another process imports torch first, and
    shares no memory.
    """
    default = "fork" if sys.platform == "linux" else multiprocessing.get_all_start_methods()[0]
    return multiprocessing.get_start_method(allow_none=True) or default


class Worker:
    """A process that reads batches.

    Args:
        dataset: to read from.
        batches: positions of the samples of each batch.
        number: of the worker, from 0.
        workers: number of workers.
        others: workers started before, whose pipes a forked process inherits.

    Raises:
        OSError: the system refuses a pipe.
    """

    def __init__(
        self,
        dataset: Dataset,
        batches: Sequence[Sequence[int]],
        number: int,
        workers: int,
        others: Sequence[Worker] = (),
    ) -> None:
        context: Any = multiprocessing.get_context(start_method())
        self.forked = start_method() == "fork"
        self.connection, self.sender = multiprocessing.Pipe()
        inherited = [worker.connection for worker in (*others, self)] if self.forked else []
        size = dataset.image_bytes * max(map(len, batches)) if self.forked else 0
        # What is not written of it takes no memory.
        self.memory = [
            torch.frombuffer(mmap(-1, size), dtype=torch.uint8) if size else None
            for _ in range(BUFFERS)
        ]
        self.received = 0
        arguments = (self.sender, inherited, self.memory, dataset, batches, number, workers)
        self.process = context.Process(target=_work, args=arguments, daemon=True)

    def start(self) -> None:
        """Start the process.

        Raises:
            OSError: the system refuses.
            UsageError: processes are spawned, and it cannot import the main module, or the dataset
                cannot be sent to it.
        """
        try:
            with self.sender, _interrupt_blocked():
                self.process.start()
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            if self.forked:
                raise
            message = f"the data cannot be sent to a process that reads it: {one_line(error)}"
            raise UsageError(message, "define its class in a module, or use 0 workers") from error
        except (ConnectionError, EOFError) as error:
            raise _not_started(ENDED) from error

    def await_start(self) -> None:
        """Wait until the process runs.

        Raises:
            UsageError: it has ended before, where processes are spawned.
            EnvironmentProblem: it has ended before, where processes are forked.
        """
        try:
            self.connection.recv()
        except (EOFError, OSError) as error:
            raise (self._ended() if self.forked else _not_started(ENDED)) from error

    def receive(self) -> Batch:
        """Return the next batch, whose images are valid until `release`; raise the worker's error.

        Raises:
            EnvironmentProblem: the worker has ended.
        """
        try:
            failure = self.connection.recv()
            if failure is None:
                memory = self.memory[self.received % BUFFERS]
                self.received += 1
                return receive_batch(self.connection, memory)
        except (EOFError, OSError) as error:
            raise self._ended() from error
        raise failure

    def release(self) -> None:
        """Let the worker write over the images of the batch that was received last."""
        with contextlib.suppress(OSError):  # it has ended, which the next batch reports
            self.connection.send(None)

    def _ended(self) -> EnvironmentProblem:
        self.process.join(GRACE)
        code = self.process.exitcode
        if code is None:
            cause = "closed its pipe"
        elif code < 0:
            return worker_died(f"was killed by {signal.Signals(-code).name}")
        else:
            cause = f"exited with code {code}"
        return worker_died(cause, "with 0 workers its error is reported")

    def terminate(self) -> None:
        """Close the pipe, and have the process end."""
        self.sender.close()
        self.connection.close()
        if self.process.pid is not None:
            self.process.terminate()

    def stop(self) -> None:
        """End the process, and close the pipe."""
        self.terminate()
        if self.process.pid is not None:
            self.process.join(GRACE)
            if self.process.exitcode is None:
                self.process.kill()
                self.process.join()


def worker_died(cause: str, hint: str = FEWER_WORKERS) -> EnvironmentProblem:
    """Return the error for a worker that has ended."""
    return EnvironmentProblem(f"a process that reads images died: it {cause}", hint)


def _not_started(cause: str) -> UsageError:
    return UsageError(f"a process that reads images does not start: {cause}", MAIN_GUARD)


def check_main_guard(workers: int) -> None:
    """Check that the main module is not being imported by a spawned process.

    Such a process imports the script that spawned it, and would run an unguarded training again.

    Args:
        workers: number of processes to start.

    Raises:
        UsageError: it is.
    """
    # Python's own check at the start of a process, which would come after the preparations.
    if workers and getattr(multiprocessing.current_process(), "_inheriting", False):
        raise _not_started("the script starts it again while the process imports the script")


def read_in_workers(
    dataset: Dataset, batches: Sequence[Sequence[int]], workers: int
) -> Generator[Batch]:
    """Yield batches in order, read by processes in turn.

    The images of each are valid until the next is taken. A process has at most three batches,
    with the one that it reads.

    Args:
        dataset: to read from.
        batches: positions of the samples of each batch.
        workers: number of processes, at least 1.

    Raises:
        EnvironmentProblem: a process cannot be started, or has ended.
        UsageError: processes are spawned, and cannot import the main module or load the dataset.
    """
    check_main_guard(workers)
    running: list[Worker] = []
    try:
        with _refusals(workers):
            for number in range(min(workers, len(batches))):
                running.append(Worker(dataset, batches[number::workers], number, workers, running))
                running[-1].start()
        for worker in running:
            worker.await_start()
        for number in range(len(batches)):
            worker = running[number % len(running)]
            yield worker.receive()
            worker.release()
    finally:
        for worker in running:
            worker.terminate()  # all of them, as each takes a while to end
        for worker in running:
            worker.stop()


@contextlib.contextmanager
def _refusals(workers: int) -> Iterator[None]:
    """Raise the system's refusals to start processes as `EnvironmentProblem`."""
    try:
        yield
    except OSError as error:
        message = f"cannot start {workers} processes that read images: {error.strerror or error}"
        full = error.errno in (errno.EMFILE, errno.ENFILE)
        hint = "allow more open files (ulimit -n), or use fewer workers, or 0"
        raise EnvironmentProblem(message, hint if full else FEWER_WORKERS) from error


@contextlib.contextmanager
def _interrupt_blocked() -> Iterator[None]:
    """Block SIGINT, which a new process would otherwise report before it ignores it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    previous = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous)


def _work(
    sender: Connection,
    inherited: Sequence[Connection],
    memory: Sequence[Tensor | None],
    dataset: Dataset,
    batches: Sequence[Sequence[int]],
    number: int,
    workers: int,
) -> None:
    """Read and send batches, in a worker."""
    # Ctrl-C is handled by the main process, which ends its workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    for connection in inherited:  # of the main process, whose end would go unnoticed
        connection.close()
    torch.set_num_threads(1)
    _seed(dataset, number, workers)
    try:
        sender.send(None)
        for position, indices in enumerate(batches):
            if position >= BUFFERS:
                sender.recv()  # one has been released
            buffer = memory[position % BUFFERS]
            try:
                batch = dataset.read(indices, buffer)
            except Exception as error:
                sender.send(_portable(error))
                return
            sender.send(None)
            send_batch(sender, batch, buffer)
        for _ in batches[:BUFFERS]:
            sender.recv()
    except (ConnectionError, EOFError):
        pass  # the main process has ended


def _seed(dataset: Dataset, number: int, workers: int) -> None:
    """Seed the global generators, and describe the worker to datasets, as torch's loader does."""
    from torch.utils.data._utils import worker

    base = int(torch.empty((), dtype=torch.int64).random_(generator=torch.Generator()))
    random.seed(base + number)
    torch.manual_seed(base + number)
    sequence = np.random.SeedSequence([number, base & 0xFFFFFFFF, base >> 32, 0])
    np.random.seed(sequence.generate_state(4))
    described: Any = dataset
    # Read by `torch.utils.data.get_worker_info`, which datasets of users may call.
    worker._worker_info = worker.WorkerInfo(
        id=number, num_workers=workers, seed=base + number, dataset=described
    )


def _portable(error: Exception) -> Exception:
    """Return an exception that can be pickled, with its traceback as a note."""
    if not isinstance(error, ZooError):
        error.add_note("".join(traceback.format_exception(error)).rstrip())
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        portable = RuntimeError(one_line(error))
        portable.__notes__ = list(getattr(error, "__notes__", ()))
        return portable
    return error
