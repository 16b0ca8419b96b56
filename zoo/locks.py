"""A lock for what threads share, in processes that are forked and objects that are pickled."""

from __future__ import annotations

import os
import threading


class Lock:
    """A reentrant lock of the threads of one process.

    It is free in a forked process, where the thread that had it does not run, and when unpickled.
    """

    def __init__(self) -> None:
        self._renew()

    def _renew(self) -> None:
        self._lock, self._process = threading.RLock(), os.getpid()

    def __enter__(self) -> None:
        if self._process != os.getpid():
            self._renew()
        self._lock.acquire()

    def __exit__(self, *exception: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[Lock], tuple[()]]:
        return Lock, ()
