"""Memory that a forward pass frees, kept by the process for the next one.

glibc gives every large block back to the system when it is freed, and gets it anew, page by page
and zeroed, when the next batch asks for it. On two cores that was 29 % of a forward pass of
EfficientNet-Lite0 and 18 % of one of resnet18 (`benchmarks/the_pass.py`).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import threading
from collections.abc import Callable, Iterator
from functools import cache

import torch

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
# No block is mapped on its own, and no free memory is given back, which -1 stands for.
KEEP = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1))
# What glibc arrives at by itself in a process that frees large blocks, see mallopt(3).
AS_BEFORE = ((M_MMAP_MAX, 65536), (M_MMAP_THRESHOLD, 32 << 20), (M_TRIM_THRESHOLD, 64 << 20))

_lock = threading.Lock()
_users = 0


@cache
def _libc() -> ctypes.CDLL | None:
    """Return glibc; None elsewhere, and where its memory is arranged by who started the process."""
    arranged = any(name.startswith("MALLOC_") for name in os.environ)
    if arranged or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return None
    try:
        known = (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
        return ctypes.CDLL(None) if known else None
    except (AttributeError, OSError, TypeError, ValueError):
        return None


@contextlib.contextmanager
def reused_memory() -> Iterator[None]:
    """Have this process keep freed memory while the block runs, and give it back at its end.

    Blocks may lie in each other, or run in several threads. Does nothing without glibc, or where
    the environment has a say already: `MALLOC_...` or `GLIBC_TUNABLES`.
    """
    libc = _libc()
    if libc is None:
        yield
        return
    _count(1, lambda: _set(libc, KEEP))
    try:
        yield
    finally:
        _count(-1, lambda: _restore(libc))


def make_room(device: torch.device) -> None:
    """Give back all memory that nothing uses, now that it has run out.

    From here on the process keeps none either, until the outermost block of `reused_memory` ends:
    what is kept in pieces of one size is in the way of another.

    Args:
        device: whose memory ran out.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    libc = _libc()
    if libc is not None:
        with _lock:
            _restore(libc)


def _count(more: int, at_the_edge: Callable[[], None]) -> None:
    """Count those who use it, and act when the first comes or the last goes."""
    global _users
    with _lock:
        before, _users = _users, _users + more
        if not before or not _users:
            at_the_edge()


def _set(libc: ctypes.CDLL, options: tuple[tuple[int, int], ...]) -> None:
    for option, value in options:
        libc.mallopt(option, value)


def _restore(libc: ctypes.CDLL) -> None:
    _set(libc, AS_BEFORE)
    libc.malloc_trim(0)
