"""Create and lock the run folder of a training."""

from __future__ import annotations

import itertools
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from shlex import quote

from filelock import FileLock, Timeout

from zoo.engine.plan.options import Options
from zoo.engine.run.claim import LOCK, RECORD, contents, has_checkpoint, has_result, is_free
from zoo.engine.run.resume import is_finished
from zoo.engine.training.checkpoints import STORED
from zoo.errors import Busy, UsageError, WeightsError
from zoo.files import environment_problem
from zoo.modelfile import CHECKPOINTS

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
        command_options: that the command needs which resumes the training.
    """

    path: Path
    created: list[Path]
    lock: FileLock
    set_aside: Path | None = None
    command_options: str = ""

    def release(self, failed: bool, resumable: bool = False) -> str | None:
        """Release the lock; after a failure, remove created folders that are empty.

        Args:
            failed: whether the training did not finish.
            resumable: whether it can be resumed even without a checkpoint, from its stored plan.

        Returns:
            After a failure, what the folder keeps, for people; None if it keeps nothing.
        """
        planned = (self.path / CHECKPOINTS / STORED).exists()
        resumable = (resumable and planned) or has_checkpoint(self.path)
        if failed and not resumable:
            unlink_if_possible(self.path / CHECKPOINTS / STORED)
            with suppress(OSError):
                (self.path / CHECKPOINTS).rmdir()  # unless it has damaged checkpoints
        names = self._names() if failed else ""
        if not (names or (failed and resumable)) or has_result(self.path):
            unlink_if_possible(self.path / LOCK)
        self.lock.release()
        if failed and resumable and not self._finished():
            command = f"zoo finetune --resume {quote(str(self.path))}{self.command_options}"
            return f"resume it with `{command}`"
        for path in reversed(self.created) if failed else ():
            with suppress(OSError):
                path.rmdir()
        if not names or (self.path / RECORD).exists():
            return None
        if has_result(self.path):
            return f"{self.path} keeps {names}"
        return f"{self.path} keeps what plugins wrote ({names}), and can be given as --out again"

    def _finished(self) -> bool:
        try:
            return is_finished(self.path)
        except WeightsError:  # the record is damaged, and a resumed training writes it again
            return False

    def _names(self) -> str:
        with suppress(OSError):  # it was removed, or replaced by a file
            return ", ".join(entry.name for entry in contents(self.path))
        return ""


def unlink_if_possible(path: Path) -> None:
    """Remove a file; where the system refuses, the error that is being handled matters more."""
    with suppress(OSError):
        path.unlink(missing_ok=True)


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
    lock = _lock(path)
    if not is_free(path):
        lock.release()
        raise not_empty(path)
    return Folder(path, created, lock, _set_aside(path))


def check_out(options: Options) -> None:
    """Check that the run folder does not exist, is empty, or of a training that did not finish.

    Raises:
        UsageError: it is a file, or a folder that is not empty.
        Busy: another run is writing into it.
        EnvironmentProblem: it cannot be read.
    """
    if options.out is None:
        return
    out = Path(options.out)
    try:
        occupied = out.is_file() or (out.is_dir() and not is_free(out))
        if occupied and (out / LOCK).exists():
            _lock(out).release()  # a training that is still running cannot be resumed
    except OSError as error:
        raise environment_problem(error, out) from error
    if occupied:
        raise not_empty(out)


def not_empty(path: Path) -> UsageError:
    """Return the error for a run folder that is in use."""
    hint = "give a new folder"
    if has_checkpoint(path) and not (path / RECORD).exists():
        hint = f"resume its training with --resume {quote(str(path))}, or {hint}"
    return UsageError(f"--out {path} is not empty", hint)


def _lock(path: Path) -> FileLock:
    """Lock a folder.

    Raises:
        Busy: another run has locked it.
    """
    lock = FileLock(path / LOCK, timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise Busy(f"another run is writing into {path}", "give another --out") from error
    return lock


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
    """Lock the folder of `--resume`, or create and lock `--out` or the first free `runs/NAME-N`.

    Raises:
        EnvironmentProblem: it cannot be created.
        Busy: another run has locked it.
        UsageError: it is not empty.
    """
    try:
        if options.resume is not None:
            return Folder(Path(options.resume), [], _lock(Path(options.resume)))
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
