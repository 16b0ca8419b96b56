"""Retain the memory that a forward pass frees, for the next one.

glibc returns every large block to the system when it is freed, and maps it anew, page by page and
zeroed, when the next batch asks for it. On two cores that was 29 % of a forward pass of
EfficientNet-Lite0 and 18 % of one of resnet18 (`benchmarks/the_pass.py`). The allocator belongs to
the whole process, so the command line arranges it and the library does not.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from collections.abc import Iterator
from functools import cache

import torch

# From glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_MMAP_MAX = -1, -3, -4
# No block is mapped on its own, and no free memory is returned, which -1 stands for.
RETAIN = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1))
# What glibc arrives at by itself in a process that frees large blocks, see mallopt(3).
DEFAULT = ((M_MMAP_MAX, 65536), (M_MMAP_THRESHOLD, 32 << 20), (M_TRIM_THRESHOLD, 64 << 20))

_retaining = False


@cache
def _libc() -> ctypes.CDLL | None:
    """Return glibc; None elsewhere, and where the environment arranges its memory."""
    arranged = any(name.startswith("MALLOC_") for name in os.environ)
    if arranged or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return None
    try:
        known = (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
        return ctypes.CDLL(None) if known else None
    except (AttributeError, OSError, TypeError, ValueError):
        return None


@contextlib.contextmanager
def retain_freed_memory() -> Iterator[None]:
    """Retain freed memory in this process while the block runs, and return it at its end.

    Without glibc it does nothing, nor where `MALLOC_...` or `GLIBC_TUNABLES` is set.
    """
    global _retaining
    libc = _libc()
    if libc is None:
        yield
        return
    _set(libc, RETAIN)
    _retaining = True
    try:
        yield
    finally:
        _stop_retaining()


def release_memory(device: torch.device) -> None:
    """Return all memory that nothing uses, when it has run out, and retain none from here on.

    Blocks retained at one size cannot serve another.

    Args:
        device: whose memory ran out.
    """
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    _stop_retaining()


def _stop_retaining() -> None:
    global _retaining
    libc = _libc()
    if libc is not None and _retaining:
        _retaining = False
        _set(libc, DEFAULT)
        libc.malloc_trim(0)


def _set(libc: ctypes.CDLL, options: tuple[tuple[int, int], ...]) -> None:
    for option, value in options:
        libc.mallopt(option, value)
