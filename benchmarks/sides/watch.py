"""Running a command as a process of its own, watched: how long, how far, and how much memory."""

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
    """What a command came to.

    Args:
        output: what it printed.
        seconds: from the command to its end, when the model file is there.
        startup: until the first image was about to be read; None where it did not say.
        epochs: seconds of each, the first one counted from there.
        memory_mb: the most that the process and its children held at one time, as `memory_of` has
            it. None where the system does not tell.
    """

    output: str
    seconds: float
    startup: float | None
    epochs: tuple[float, ...]
    memory_mb: float | None


class Failed(SystemExit):
    """A command failed, and the program ends with what it said."""


def memory_of(session: int) -> float | None:
    """Return the resident memory of all processes of a session in MB.

    What they share is counted once: of anonymous and shared memory each has its part, and of mapped
    files, which are the same libraries in all, the largest process's count. Proportional set size
    would count files less while other programs on the machine have them mapped too.
    """
    own, files = 0.0, []
    for folder in Path("/proc").glob("[0-9]*"):
        # A process may end while it is looked at.
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
        folder: that it runs in, and where its output and its marks are kept meanwhile.
        environment: all of it.

    Raises:
        Failed: it did.
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
        # Else a measurement that is stopped would leave this to disturb the next one.
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
    """Return the seconds until all was ready, and those of each epoch."""
    found = [json.loads(line) for line in marks.read_text().splitlines()] if marks.exists() else []
    ready = [line["at"] for line in found if line["mark"] == READY]
    if not ready:
        return None, ()
    ends = [ready[0], *(line["at"] for line in found if line["mark"] == EPOCH)]
    epochs = tuple(after - before for before, after in pairwise(ends))
    return ready[0] - began, epochs
