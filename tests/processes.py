"""Processes that end with the test that starts them."""

import multiprocessing
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

ZOO = f"{shlex.quote(sys.executable)} -m zoo"


def shell(line: str, folder: Path) -> tuple[int, str, str]:
    """Run a shell line that calls `zoo` in a folder; return exit code, stdout, stderr."""
    command = ["bash", "-o", "pipefail", "-c", line.replace("zoo ", f"{ZOO} ")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=120)
    return done.returncode, done.stdout, done.stderr


@contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator[subprocess.Popen]:
    """Start a process in a new session; kill it and its children at the end.

    Args:
        command: program and arguments.
        options: of `subprocess.Popen`; streams are text.
    """
    process = subprocess.Popen(command, text=True, start_new_session=True, **options)
    try:
        yield process
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        with process:  # closes its pipes and waits
            pass


@contextmanager
def forked(function: Callable[..., object], *arguments: Any) -> Iterator[Any]:
    """Call a function in a forked process; yield the queue that it gets as its last argument.

    The process has ended without an error where the block begins.
    """
    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    process = context.Process(target=function, args=(*arguments, answers))
    process.start()
    try:
        process.join(60)
        assert process.exitcode == 0
        yield answers
    finally:
        process.kill()
        process.join()
