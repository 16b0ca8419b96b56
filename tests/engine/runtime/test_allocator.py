"""Freed memory is retained for the next batch and released at the end, in real processes."""

import os
import subprocess
import sys

import pytest

WATCH = """
import os
import torch
from zoo.engine.runtime.allocator import release_memory, retain_freed_memory

def freed():
    # MiB that stay resident of 128 that have been written and freed, as by a batch. By default
    # glibc maps blocks above 32 MiB separately, and unmaps them when they are freed.
    for _ in range(3):
        parts = [torch.ones(16 << 20) for _ in range(2)]
        del parts
    return resident() - began

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20

torch.ones(1 << 20).add_(1)
began = resident()
print(freed())
with retain_freed_memory():
    print(freed())
print(resident() - began)
try:
    with retain_freed_memory():
        print(freed())
        raise KeyboardInterrupt
except KeyboardInterrupt:
    print(resident() - began)
with retain_freed_memory():
    print(freed())
    release_memory(torch.device("cpu"))
    print(resident() - began)
"""


def watched(**environment):
    surroundings = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))
    }
    command = [sys.executable, "-c", WATCH]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**surroundings, **environment}
    )
    return [int(number) for number in done.stdout.split()]


def has_glibc():
    try:
        return os.confstr("CS_GNU_LIBC_VERSION").startswith("glibc")
    except (AttributeError, ValueError):
        return False


@pytest.mark.slow
@pytest.mark.skipif(not has_glibc(), reason="the C library is another")
def test_retain_freed_memory_reuses_and_releases_blocks():
    # MiB of 128 that are resident although freed; what is less than 16 is of torch's own start.
    before, *states = watched()
    assert before < 16
    for within, released in zip(states[::2], states[1::2], strict=True):
        assert within > 120
        assert released < 16


@pytest.mark.slow
@pytest.mark.skipif(not has_glibc(), reason="the C library is another")
def test_malloc_environment_variables_take_precedence():
    _, within, *_ = watched(MALLOC_ARENA_MAX="2")
    assert within < 16
