"""Seeing to it that nothing asks the network."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

EVENTS = ("socket.connect", "socket.sendto")

_watching: list[list[str]] = []
_hooked = False


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    # The address of a Unix socket is a path, and leads to this machine.
    if _watching and event in EVENTS and not isinstance(arguments[1], (str, bytes)):
        _watching[-1].append(f"{event} {arguments[1:] or arguments}"[:120])
        raise ConnectionRefusedError("a network must not be asked for anything here")


@contextmanager
def forbid_network() -> Iterator[list[str]]:
    """Refuse every connection of this process that Python makes, and list what was tried.

    Code that catches the refusal and goes on is found out by the list. It rests on Python's audit
    events (PEP 578), so a library that opens sockets in native code is not seen.
    """
    global _hooked
    if not _hooked:
        sys.addaudithook(_watch)  # which can never be taken away again
        _hooked = True
    tried: list[str] = []
    _watching.append(tried)
    try:
        yield tried
    finally:
        _watching.pop()
