"""The run folder: created and claimed by one run, given back whatever happens."""

from __future__ import annotations

import itertools
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from zoo.engine.plan.options import Options
from zoo.engine.run.prepare import CLAIM
from zoo.errors import Busy, UsageError
from zoo.files import environment_problem


@dataclass
class Folder:
    """A run folder while it is ours.

    Args:
        path: the folder.
        created: folders that did not exist before, outermost first.
        claim: held for as long as the run lasts, so that two runs never write into one folder.
    """

    path: Path
    created: list[Path]
    claim: FileLock

    def give_back(self, failed: bool) -> None:
        """Let the claim go; after a failure take away what holds nothing."""
        (self.path / CLAIM).unlink(missing_ok=True)
        self.claim.release()
        for path in reversed(self.created) if failed else ():
            with suppress(OSError):
                path.rmdir()


@contextmanager
def signals_waiting() -> Iterator[None]:
    """Have what would end the process wait until a block is through."""
    if threading.current_thread() is not threading.main_thread():
        yield  # no handler runs here
        return
    arrived: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    # A mask would not do: where another thread takes the signal, the handler still runs here.
    before = {number: signal.signal(number, lambda n, _: arrived.append(n)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for one in arrived:
            signal.raise_signal(one)


def _create(path: Path) -> list[Path]:
    """Create a folder with its parents, and return those that are new, outermost first."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
    return missing[::-1]


def _claim(path: Path, created: list[Path]) -> Folder:
    """Take a folder for this run alone.

    Raises:
        Busy: another run has it.
        UsageError: it holds something.
    """
    claim = FileLock(path / CLAIM, timeout=0)
    try:
        claim.acquire()
    except Timeout as error:
        raise Busy(f"another run is writing into {path}", "give another --out") from error
    folder = Folder(path, created, claim)
    if any(found.name != CLAIM for found in path.iterdir()):
        folder.give_back(failed=True)
        raise UsageError(f"{path} is not empty", "give a new folder; nothing is overwritten")
    return folder


def claim_folder(options: Options, name: str) -> Folder:
    """Create the run folder, as given or the first free `runs/NAME-N`, and claim it.

    Raises:
        EnvironmentProblem: the system refuses.
        Busy: another run has it.
        UsageError: it holds something.
    """
    try:
        if options.out is not None:
            return _claim(Path(options.out), _create(Path(options.out)))
        created = _create(Path("runs"))
        for number in itertools.count(1):
            folder = Path("runs") / f"{name}-{number}"
            with suppress(FileExistsError):
                folder.mkdir()
                return _claim(folder, [*created, folder])
    except OSError as error:
        raise environment_problem(error, Path(options.out or "runs")) from error
    raise AssertionError("there is always a next number")
