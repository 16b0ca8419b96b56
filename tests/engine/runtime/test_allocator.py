"""Freed memory is retained for the next batch and released at the end, in real processes."""

import os
import subprocess
import sys

import pytest

WATCH = """
import os, resource
import torch
from zoo.engine.runtime.allocator import release_memory, retain_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        for part in [torch.ones(4 << 20) for _ in range(4)]:
            part.add_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") >> 20

torch.ones(1 << 20).add_(1)
began = resident()
print(faults())
with retain_freed_memory():
    faults()
    print(faults())
    retained = resident()
released = resident()
print(faults())
print(retained - began, released - began)
try:
    with retain_freed_memory():
        raise KeyboardInterrupt
except KeyboardInterrupt:
    faults()
    print(faults())
with retain_freed_memory():
    faults()
    release_memory(torch.device("cpu"))
    print(resident() - began, faults())
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
    before, within, after, retained, released, once_more, *ran_out = watched()
    # 20 times 64 MiB, in pages that the system chooses anew each time: of 4 KiB up to 2 MiB.
    mapped_anew = 20 * 64 // 2 * 0.8
    assert min(before, after, once_more, ran_out[1]) > mapped_anew
    assert within < mapped_anew / 10
    assert retained > 60
    assert released < retained / 2
    assert ran_out[0] < retained / 2


@pytest.mark.slow
def test_malloc_environment_variables_take_precedence():
    _, within, *_ = watched(MALLOC_ARENA_MAX="2")
    assert within > 20 * 64 // 2 * 0.8
