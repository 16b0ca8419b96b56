"""Items that a thread takes ahead of their use."""

import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from zoo.data.loader import prefetch


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
