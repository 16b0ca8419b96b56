"""Reading in threads, together or ahead of the use."""

import itertools
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from zoo.data.threads import prefetch, read_in_threads


@pytest.mark.parametrize(("threads", "ahead"), [(1, 0), (2, 0), (3, 2), (7, 4)])
def test_read_in_threads_returns_batches_in_order(threads: int, ahead: int) -> None:
    used: set[str] = set()

    def read(item: int) -> int:
        used.add(threading.current_thread().name)
        time.sleep(0.001 * (item % 3))
        return item**2

    batches = [[*range(20)], [], [7], [*range(50, 53)]]
    read_batches = [*read_in_threads(read, iter(batches), threads, ahead)]
    assert read_batches == [[item**2 for item in batch] for batch in batches]
    assert 1 <= len(used) <= threads
    assert [*read_in_threads(read, [], threads, ahead)] == []


def test_read_in_threads_shares_items_of_a_batch_by_the_time_they_take() -> None:
    slow, others = threading.Event(), threading.Semaphore(0)

    def read(item: int) -> str:
        if item == 0:
            assert slow.wait(20)
        else:
            others.release()
            if item == 9:
                slow.set()
        return threading.current_thread().name

    ((first, *names),) = read_in_threads(read, [range(10)], 2, 0)
    assert first not in names
    assert len(set(names)) == 1


def test_read_in_threads_raises_an_error_of_reading_and_reads_no_more() -> None:
    seen: list[int] = []

    def read(item: int) -> int:
        seen.append(item)
        if item == 3:
            raise KeyError("third")
        time.sleep(0.01)
        return item

    batches = read_in_threads(read, [[1, 2], range(3, 99), range(99, 200)], 2, 2)
    assert next(batches) == [1, 2]
    with pytest.raises(KeyError, match="third"):
        next(batches)
    assert len(seen) < 20
    assert not [each for each in threading.enumerate() if each.name.startswith("zoo-read")]


UNCLOSED = """
import gc, threading, time
from zoo.data.threads import read_in_threads

def read(item):
    time.sleep(0.01)
    return item

gc.disable()
reading = [read_in_threads(read, [[number] for number in range(99)], 2, 4)]
assert next(reading[0]) == [0]
reading.append(reading)
del reading
lock = getattr(threading, "_shutdown_locks_lock", threading.Lock())
with lock:  # as a thread has it that starts
    assert gc.collect()
until = time.monotonic() + 20
while threading.active_count() > 1 and time.monotonic() < until:
    time.sleep(0.01)
print(threading.active_count())
"""


def test_unclosed_threads_end_where_garbage_is_collected() -> None:
    command = [sys.executable, "-c", UNCLOSED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.stdout == "1\n", done.stderr


def prefetching() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "zoo-prefetch"]


def test_prefetch_takes_items_ahead_in_one_thread_and_in_order() -> None:
    taken: list[tuple[int, str]] = []

    def items() -> Iterator[int]:
        for number in range(20):
            taken.append((number, threading.current_thread().name))
            yield number

    with closing(prefetch(items(), ahead=2)) as prefetched:
        assert next(prefetched) == 0
        until = time.monotonic() + 20
        while len(taken) < 4 and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.1)
        # Two are ready, and the next waits for room.
        assert taken == [(number, "zoo-prefetch") for number in range(4)]
        assert list(prefetched) == list(range(1, 20))
    assert not prefetching()


def test_prefetch_raises_what_the_iterator_raises_after_its_items() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("second")

    prefetched = prefetch(items())
    assert next(prefetched) == 1
    with pytest.raises(KeyError, match="second"):
        next(prefetched)
    assert not prefetching()
    assert list(prefetch(iter([]))) == []


def test_prefetch_ends_its_thread_with_its_caller() -> None:
    prefetched = prefetch(itertools.count())
    assert [next(prefetched), next(prefetched)] == [0, 1]
    assert len(prefetching()) == 1
    prefetched.close()
    assert not prefetching()
