"""Read in threads of this process."""

from __future__ import annotations

import contextlib
import itertools
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from queue import Empty, Queue
from typing import Generic, TypeVar

Item = TypeVar("Item")
Read = TypeVar("Read")


def read_in_threads(
    read: Callable[[Item], Read], batches: Iterable[Sequence[Item]], threads: int, ahead: int
) -> Generator[list[Read]]:
    """Read batches in threads, in order.

    Args:
        read: reads one item; called by several threads at once.
        batches: items of each batch, taken from the iterable as they are needed.
        threads: how many read.
        ahead: number of batches to prefetch.
    """
    pending: deque[_ItemsInThreads[Item, Read]] = deque()
    remaining = iter(batches)
    pool = ThreadPoolExecutor(threads, thread_name_prefix="zoo-read")

    def submit(limit: int) -> None:
        for batch in itertools.islice(remaining, limit - len(pending)):
            pending.append(_ItemsInThreads(pool, read, batch, threads))

    stopped = False
    try:
        while True:
            submit(max(ahead, 1))
            if not pending:
                return
            items = pending[0].result()
            pending.popleft()
            submit(ahead)
            yield items
    except GeneratorExit:
        stopped = True
        raise
    finally:
        # A caller that stops early waits only for what is being read. It does not join the threads:
        # an unclosed generator is stopped where Python collects garbage, which may be in a thread
        # that starts, and has the lock that joining takes.
        for batch in pending:
            batch.cancel()
        pool.shutdown(wait=not stopped, cancel_futures=True)
        wait([future for batch in pending for future in batch.futures if not future.cancelled()])


class _ItemsInThreads(Generic[Item, Read]):
    """Items that several threads read, each the next that is left.

    A future for each item would take a tenth of the time of reading it.

    Args:
        pool: of the threads.
        read: reads an item.
        items: to read.
        threads: number of threads.
    """

    def __init__(
        self,
        pool: ThreadPoolExecutor,
        read: Callable[[Item], Read],
        items: Sequence[Item],
        threads: int,
    ) -> None:
        self._read = read
        self._items = items
        self._left = deque(range(len(items)))
        self._results: dict[int, Read] = {}
        self.futures = [pool.submit(self._run) for _ in range(min(threads, len(items)))]

    def _run(self) -> None:
        while True:
            try:
                index = self._left.popleft()
            except IndexError:
                return
            try:
                self._results[index] = self._read(self._items[index])
            except BaseException:
                self.cancel()
                raise

    def cancel(self) -> None:
        """Read nothing beyond the items that are being read."""
        self._left.clear()

    def result(self) -> list[Read]:
        """Return what was read, in order, or raise an error of reading."""
        for future in self.futures:
            future.result()
        return [self._results[index] for index in range(len(self._items))]


def prefetch(items: Iterator[Item], ahead: int = 1) -> Generator[Item]:
    """Yield the items of an iterator that a thread takes ahead, and raise what it raises.

    Args:
        items: used in the thread only.
        ahead: number of items to take ahead of the one that is awaited.
    """
    ready: Queue[Item | _End] = Queue(ahead)
    stopped = threading.Event()

    def run() -> None:
        end = _End()
        try:
            for item in items:
                ready.put(item)
                if stopped.is_set():
                    return
        except BaseException as error:
            end = _End(error)
        ready.put(end)

    thread = threading.Thread(target=run, name="zoo-prefetch", daemon=True)
    thread.start()
    try:
        while not isinstance(item := ready.get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
        while thread.is_alive():  # it may wait for room
            with contextlib.suppress(Empty):
                ready.get(timeout=0.01)
        thread.join()


@dataclass(frozen=True)
class _End:
    """The end of an iterator, and the error that ended it."""

    error: BaseException | None = None
