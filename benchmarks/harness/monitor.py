"""Run a command as a process, and measure its time, progress and peak memory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from benchmarks.harness.marks import EPOCH, MARKS, READY

POLL_INTERVAL = 0.25


@dataclass(frozen=True)
class Completed:
    """Measurements of a completed command.

    Args:
        output: its stdout.
        seconds: wall time of the process.
        startup: seconds until the mark READY; None without one.
        epochs: seconds of each; the first starts at READY.
        memory_mb: peak of `memory_of`; None where the system has no `/proc`.
    """

    output: str
    seconds: float
    startup: float | None
    epochs: tuple[float, ...]
    memory_mb: float | None


class CommandFailed(SystemExit):
    """A command failed; the message has the end of its stderr."""


def memory_of(session: int) -> float | None:
    """Return the resident memory of all processes of a session in MB.

    Shared memory is counted once: anonymous and shared pages in proportion, mapped files, which are
    the same libraries in all, as in the largest process. The proportional set size would count
    files less while unrelated processes map them too.
    """
    anonymous, files = 0.0, []
    for folder in Path("/proc").glob("[0-9]*"):
        # A process may exit while it is read.
        with suppress(OSError, ValueError, IndexError, KeyError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                _, *lines = (folder / "smaps_rollup").read_text().splitlines()
                sizes = {line.split()[0]: int(line.split()[1]) / 1024 for line in lines}
                anonymous += sizes["Pss_Anon:"] + sizes["Pss_Shmem:"]
                files.append(sizes["Rss:"] - sizes["Anonymous:"])
    return anonymous + max(files) if files else None


class _MemoryPoll(threading.Thread):
    def __init__(self, session: int) -> None:
        super().__init__(daemon=True)
        self.session = session
        self.peak: float | None = None
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(POLL_INTERVAL):
            now = memory_of(self.session)
            if now is not None:
                self.peak = max(self.peak or 0.0, now)


def _exit_on_sigterm(*_: object) -> None:
    raise SystemExit(128 + signal.SIGTERM)


def run_monitored(command: list[str], folder: Path, environment: dict[str, str]) -> Completed:
    """Run a command to its end.

    Args:
        command: program and arguments.
        folder: working directory, also for its output and marks.
        environment: complete environment of the process.

    Raises:
        CommandFailed: the exit code is not 0.
    """
    folder.mkdir(parents=True, exist_ok=True)
    marks, output = folder / "marks.jsonl", folder / "output.txt"
    marks.unlink(missing_ok=True)
    with output.open("w") as out, (folder / "errors.txt").open("w+") as errors:
        began = time.time()
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**environment, MARKS: str(marks)},
            stdout=out,
            stderr=errors,
            start_new_session=True,
        )
        # Otherwise the process would survive an interrupted benchmark, and disturb the next one.
        previous = signal.signal(signal.SIGTERM, _exit_on_sigterm)
        poll = _MemoryPoll(process.pid)
        poll.start()
        try:
            code = process.wait()
            seconds = time.time() - began
        finally:
            poll.done.set()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            signal.signal(signal.SIGTERM, previous)
        if code:
            errors.seek(0)
            raise CommandFailed(f"{' '.join(command)} failed:\n{errors.read()[-4000:]}")
    startup, epochs = read_marks(marks, began)
    return Completed(output.read_text(), seconds, startup, epochs, poll.peak)


def read_marks(path: Path, began: float) -> tuple[float | None, tuple[float, ...]]:
    """Return the seconds from `began` until READY, and those of each epoch."""
    marks = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    ready = [mark["at"] for mark in marks if mark["mark"] == READY]
    if not ready:
        return None, ()
    ends = [ready[0], *(mark["at"] for mark in marks if mark["mark"] == EPOCH)]
    epochs = tuple(after - before for before, after in pairwise(ends))
    return ready[0] - began, epochs
