"""Signals that end a training, deferred to where its state is consistent."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

from zoo.errors import Interruption

NUMBERS = (signal.SIGINT, signal.SIGTERM)
Handler = Callable[[int, FrameType | None], Any] | int | None


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Defer SIGINT and SIGTERM until the end of a block."""
    if threading.current_thread() is not threading.main_thread():
        yield  # handlers run in the main thread only
        return
    pending: list[int] = []
    # Not a signal mask: if another thread receives the signal, the handler still runs in this one.
    previous: dict[int, Handler] = {
        n: signal.signal(n, lambda number, _: pending.append(number)) for n in NUMBERS
    }
    try:
        yield
    finally:
        _install(previous)
        for received in pending:
            signal.raise_signal(received)


class Alarm(Interruption):
    """The time of a block is over."""


class Interrupts:
    """Records the first SIGINT or SIGTERM in a block, for the owner to act on; a context manager.

    The first signal only sets `received` while `deferring` is true. Every other signal is handled
    as before the block, so a second one ends the process at once. In other threads than the main
    one, which receives no signals, nothing is recorded.

    Args:
        limit: seconds after which the block ends by `Alarm`, deferred like a signal; None for none.

    Attributes:
        received: number of the deferred signal; None before one.
        raised: by the handler of a signal that was not deferred; None before one. Code of others
            may have caught it.
        deferring: whether the next signal is deferred.
    """

    def __init__(self, limit: float | None = None) -> None:
        self.limit = limit
        self.received: int | None = None
        self.raised: BaseException | None = None
        self.deferring = False
        self._previous: dict[int, Handler] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            if self.limit is not None and self.limit <= 0:
                raise Alarm
            # A shell ignores SIGINT for a job in the background, and nohup for others.
            numbers = [n for n in NUMBERS if signal.getsignal(n) is not signal.SIG_IGN]
            numbers += [] if self.limit is None else [signal.SIGALRM]
            self._previous = {number: signal.getsignal(number) for number in numbers}
            for number in numbers:
                signal.signal(number, self._handle)
            if self.limit is not None:
                # Repeated, since Python drops what a handler raises in a finalizer.
                signal.setitimer(signal.ITIMER_REAL, self.limit, 1.0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._restore()
        if self.received is not None and error is None:
            self.raise_received()

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Defer no signal in a block."""
        before, self.deferring = self.deferring, False
        try:
            yield
        finally:
            self.deferring = before

    @property
    def pending(self) -> bool:
        """Whether a signal was deferred, or what its handler raised was caught."""
        return self.received is not None or self.raised is not None

    def raise_received(self) -> None:
        """Handle the deferred signal as before the block, which raises or ends the process."""
        if self.raised is not None:
            raise self.raised
        number, self.received = self.received, None
        if number == signal.SIGALRM:
            self._restore()
            raise Alarm
        if number is not None:
            self._restore()
            signal.raise_signal(number)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        try:
            self._defer_or_raise(number)
        except BaseException as error:
            self.raised = error
            raise

    def _defer_or_raise(self, number: int) -> None:
        if number == signal.SIGALRM:
            if self.deferring:
                self.received = self.received or number
                return
            raise Alarm
        if self.deferring and self.received is None:
            self.received = number
            return
        self.received = None
        self._restore()
        signal.raise_signal(number)

    def _restore(self) -> None:
        previous, self._previous = self._previous, {}
        if signal.SIGALRM in previous:
            signal.setitimer(signal.ITIMER_REAL, 0)
        _install(previous)


def _install(handlers: dict[int, Handler]) -> None:
    for number, handler in handlers.items():
        # None for a handler that was not installed from Python.
        signal.signal(number, signal.SIG_DFL if handler is None else handler)
