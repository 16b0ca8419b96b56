"""Retain the memory that a forward pass frees, for reuse by the next one.

glibc unmaps every large block when it is freed, and maps it again, page by page and zeroed, for the
next batch. On two cores that was 29 % of a forward pass of EfficientNet-Lite0 and 18 % of one of
resnet18 (`benchmarks/forward_pass.py`). The allocator is process-wide, so the command line
configures it and the library does not.
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
# No block is mapped separately, and free memory is never returned (-1).
RETAIN = ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, -1))
# The values that glibc adapts to in a process that frees large blocks, see mallopt(3).
DEFAULT = ((M_MMAP_MAX, 65536), (M_MMAP_THRESHOLD, 32 << 20), (M_TRIM_THRESHOLD, 64 << 20))

_retaining = False


@cache
def _libc() -> ctypes.CDLL | None:
    """Return glibc; None for another C library, or where the environment configures malloc."""
    configured = any(name.startswith("MALLOC_") for name in os.environ)
    if configured or "glibc.malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return None
    try:
        is_glibc = (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
        return ctypes.CDLL(None) if is_glibc else None
    except (AttributeError, OSError, TypeError, ValueError):
        return None


@contextlib.contextmanager
def retain_freed_memory() -> Iterator[None]:
    """Retain freed memory in this process while the block runs, and release it at the end.

    No effect without glibc, or where `MALLOC_...` or `GLIBC_TUNABLES` is set.
    """
    global _retaining
    libc = _libc()
    if libc is None:
        yield
        return
    _configure(libc, RETAIN)
    _retaining = True
    try:
        yield
    finally:
        _stop_retaining()


@contextlib.contextmanager
def without_retaining() -> Iterator[None]:
    """Return freed memory to the system in the block: another library than torch computes in it.

    No effect where freed memory is not retained.
    """
    global _retaining
    retained, libc = _retaining, _libc()
    _stop_retaining()
    try:
        yield
    finally:
        if retained and libc is not None:
            _configure(libc, RETAIN)
            _retaining = True


def release_memory(device: torch.device) -> None:
    """Release all unused memory after an out-of-memory error, and stop retaining freed memory.

    Blocks retained at one size cannot serve another.

    Args:
        device: that ran out of memory.
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
        _configure(libc, DEFAULT)
        libc.malloc_trim(0)


def _configure(libc: ctypes.CDLL, options: tuple[tuple[int, int], ...]) -> None:
    for option, value in options:
        libc.mallopt(option, value)
