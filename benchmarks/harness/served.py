"""Programs in processes of their own, which run what they are sent and print how long it took."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def serving(
    program: str, version: Path, *arguments: str, **environment: str
) -> Iterator[subprocess.Popen[str]]:
    """Start a program with the zoo of a folder, and end it.

    Args:
        program: Python that reads lines of stdin, and prints seconds and CPU seconds for each.
        version: the folder.
        arguments: of the program.
        environment: variables beside those of this process.
    """
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", program, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=version,
        env={**os.environ, "PYTHONPATH": str(version), **environment},
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def ask(process: subprocess.Popen[str], what: str) -> tuple[float, float]:
    """Have a program run something, and return seconds and CPU seconds."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{what}\n")
    process.stdin.flush()
    line = process.stdout.readline()
    while line and not line[0].isdigit():  # what a library prints
        line = process.stdout.readline()
    seconds, cpu = line.split()
    return float(seconds), float(cpu)
