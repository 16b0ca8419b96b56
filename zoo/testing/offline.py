"""Refuse and record network connections of this process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

EVENTS = ("socket.connect", "socket.sendto", "socket.getaddrinfo")

_active: list[list[str]] = []
_hooked = False


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if not _active or event not in EVENTS:
        return
    # The address of a Unix socket is a path, which is local.
    if event == "socket.getaddrinfo" or not isinstance(arguments[1], (str, bytes)):
        # The first argument of the other events is a socket.
        address = arguments if event == "socket.getaddrinfo" else arguments[1:]
        _active[-1].append(f"{event} {address}"[:120])
        raise ConnectionRefusedError("network connections are forbidden in conformance checks")


@contextmanager
def forbid_network() -> Iterator[list[str]]:
    """Refuse Python's network connections and lookups of names, and yield the list of attempts.

    The list also contains attempts whose error was caught. It uses Python's audit events
    (PEP 578), so sockets opened in native code are not detected.
    """
    global _hooked
    if not _hooked:
        sys.addaudithook(_refuse)  # cannot be removed, hence added once
        _hooked = True
    attempts: list[str] = []
    _active.append(attempts)
    try:
        yield attempts
    finally:
        _active.pop()
