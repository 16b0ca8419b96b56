"""Run a command in a process, and measure its time, marks and peak memory."""

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

from benchmarks.sides.marks import EPOCH, MARKS, READY

EVERY = 0.25


@dataclass(frozen=True)
class Watched:
    """Measurements of a command.

    Args:
        output: on stdout.
        seconds: from start to exit.
        startup: seconds until the first image is read; None without a READY mark.
        epochs: seconds of each epoch.
        memory_mb: peak of `memory_of`; None if the system does not report it.
    """

    output: str
    seconds: float
    startup: float | None
    epochs: tuple[float, ...]
    memory_mb: float | None


class Failed(SystemExit):
    """A command failed; exits with its output."""


def memory_of(session: int) -> float | None:
    """Return the resident memory of all processes of a session in MB.

    Shared pages are counted once: anonymous and shared memory by proportional share, mapped files,
    which are the same libraries in all processes, by the largest process. The proportional set size
    of files would depend on other programs that map them.
    """
    own, files = 0.0, []
    for folder in Path("/proc").glob("[0-9]*"):
        # A process may exit meanwhile.
        with suppress(OSError, ValueError, IndexError, KeyError):
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            if int(fields[3]) == session:
                _, *lines = (folder / "smaps_rollup").read_text().splitlines()
                sizes = {line.split()[0]: int(line.split()[1]) / 1024 for line in lines}
                own += sizes["Pss_Anon:"] + sizes["Pss_Shmem:"]
                files.append(sizes["Rss:"] - sizes["Anonymous:"])
    return own + max(files) if files else None


class _Poll(threading.Thread):
    def __init__(self, session: int) -> None:
        super().__init__(daemon=True)
        self.session, self.peak, self.done = session, None, threading.Event()

    def run(self) -> None:
        while not self.done.wait(EVERY):
            now = memory_of(self.session)
            if now is not None:
                self.peak = max(self.peak or 0.0, now)


def _terminated(*_: object) -> None:
    raise SystemExit(128 + signal.SIGTERM)


def watch(command: list[str], folder: Path, environment: dict[str, str]) -> Watched:
    """Run a command to its end.

    Args:
        command: program and arguments.
        folder: current folder, with output and marks.
        environment: all variables.

    Raises:
        Failed: the exit code is not 0.
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
        # So that an interrupted measurement does not leave the process running.
        before = signal.signal(signal.SIGTERM, _terminated)
        poll = _Poll(process.pid)
        poll.start()
        try:
            code = process.wait()
            seconds = time.time() - began
        finally:
            poll.done.set()
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            signal.signal(signal.SIGTERM, before)
        if code:
            errors.seek(0)
            raise Failed(f"{' '.join(command)} failed:\n{errors.read()[-4000:]}")
    startup, epochs = read_marks(marks, began)
    return Watched(output.read_text(), seconds, startup, epochs, poll.peak)


def read_marks(marks: Path, began: float) -> tuple[float | None, tuple[float, ...]]:
    """Return the seconds until READY, and those of each epoch."""
    entries = (
        [json.loads(line) for line in marks.read_text().splitlines()] if marks.exists() else []
    )
    ready = [line["at"] for line in entries if line["mark"] == READY]
    if not ready:
        return None, ()
    ends = [ready[0], *(line["at"] for line in entries if line["mark"] == EPOCH)]
    epochs = tuple(after - before for before, after in pairwise(ends))
    return ready[0] - began, epochs
