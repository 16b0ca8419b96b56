"""Create and lock the run folder of a training."""

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
from zoo.engine.run.claim import LOCK, RECORD, contents, has_result, is_free
from zoo.errors import Busy, UsageError
from zoo.files import environment_problem

UNFINISHED = "unfinished-"


@dataclass
class Folder:
    """A run folder that is locked by this run.

    Args:
        path: the folder.
        created: folders that did not exist before, outermost first.
        lock: acquired until the run ends, so that no two runs write into one folder.
        set_aside: subfolder with what plugins wrote for a training that did not finish; None if
            there was nothing.
    """

    path: Path
    created: list[Path]
    lock: FileLock
    set_aside: Path | None = None

    def release(self, failed: bool) -> str | None:
        """Release the lock; after a failure, remove created folders that are empty.

        Returns:
            After a failure, what the folder keeps, for people; None if it keeps nothing.
        """
        names = ", ".join(entry.name for entry in contents(self.path)) if failed else ""
        if not names or has_result(self.path):
            (self.path / LOCK).unlink(missing_ok=True)
        self.lock.release()
        for path in reversed(self.created) if failed else ():
            with suppress(OSError):
                path.rmdir()
        if not names or (self.path / RECORD).exists():
            return None
        if has_result(self.path):
            return f"{self.path} keeps {names}"
        return f"{self.path} keeps what plugins wrote ({names}), and can be given as --out again"


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Defer SIGINT and SIGTERM until the end of a block."""
    if threading.current_thread() is not threading.main_thread():
        yield  # handlers run in the main thread only
        return
    pending: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    # Not a signal mask: if another thread receives the signal, the handler still runs in this one.
    previous = {n: signal.signal(n, lambda number, _: pending.append(number)) for n in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for received in pending:
            signal.raise_signal(received)


def _create(path: Path) -> list[Path]:
    """Create a folder with its parents, and return those that are new, outermost first."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
    return missing[::-1]


def _acquire(path: Path, created: list[Path]) -> Folder:
    """Lock a folder for this run.

    Raises:
        Busy: another run has locked it.
        UsageError: it is not empty.
    """
    lock = FileLock(path / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise Busy(f"another run is writing into {path}", "give another --out") from error
    if not is_free(path):
        lock.release()
        raise UsageError(f"{path} is not empty", "give a new folder")
    return Folder(path, created, lock, _set_aside(path))


def _set_aside(path: Path) -> Path | None:
    """Move what plugins wrote for a training that did not finish into a subfolder, and return that.

    Plugins of the next training may append to files that they find, or refuse to.
    """
    entries = [each for each in contents(path) if not each.name.startswith(UNFINISHED)]
    if not entries:
        return None
    for number in itertools.count(1):
        folder = path / f"{UNFINISHED}{number}"
        with suppress(FileExistsError):
            folder.mkdir()
            break
    for entry in entries:
        entry.rename(folder / entry.name)
    return folder


def acquire_folder(options: Options, name: str) -> Folder:
    """Create and lock the run folder: `--out`, or the first free `runs/NAME-N`.

    Raises:
        EnvironmentProblem: it cannot be created.
        Busy: another run has locked it.
        UsageError: it is not empty.
    """
    try:
        if options.out is not None:
            return _acquire(Path(options.out), _create(Path(options.out)))
        created = _create(Path("runs"))
        for number in itertools.count(1):
            folder = Path("runs") / f"{name}-{number}"
            with suppress(FileExistsError):
                folder.mkdir()
                return _acquire(folder, [*created, folder])
    except OSError as error:
        raise environment_problem(error, Path(options.out or "runs")) from error
    raise AssertionError("unreachable: itertools.count does not end")
