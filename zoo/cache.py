"""What zoo keeps in its cache folder: found, bounded and cleared.

All of it can be had again, so all of it may be deleted at any time. Features of a network that a
training reads just then are left alone; what a training reads is a shelf of
`zoo.engine.features.store`, and it holds the shelf's lock for as long.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from zoo.files import cache_dir, environment_problem, make_dir

KINDS = ("features", "weights", "catalogues", "downloads")
SHELF = "shelf.json"
LOCK = ".lock"
INDEX, ROWS, PART = ".index", ".rows", ".part"
DIGEST = 32


@dataclass(frozen=True)
class Held:
    """Something in the cache folder.

    Args:
        kind: one of `KINDS`.
        path: the file or folder.
        size: in bytes, on the disk.
        used: when it was last read or written, in seconds since 1970.
        images: how many a shelf of features holds; None for anything else.
        what: what a shelf says of itself; empty for anything else.
    """

    kind: str
    path: Path
    size: int
    used: float
    images: int | None = None
    what: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """What a person calls it."""
        return str(self.what.get("backbone") or self.path.name)


def features_dir() -> Path:
    """Where shelves of features stand."""
    return cache_dir() / "features"


def held(kind: str) -> list[Held]:
    """Return what there is of a kind, the longest unused first."""
    folder = cache_dir() / kind
    try:
        entries = list(folder.iterdir())
    except OSError:
        return []
    found = [each for path in entries if (each := _look_at(kind, path)) is not None]
    return sorted(found, key=lambda each: (each.used, each.path.name))


def _look_at(kind: str, path: Path) -> Held | None:
    """Describe an entry; None where it has gone, or is a lock."""
    try:
        if path.is_dir():
            statuses = {inner.name: inner.stat() for inner in path.iterdir()}
        else:
            statuses = {path.name: path.stat()}
    except OSError:
        return None
    if path.name.endswith(LOCK) or not statuses:
        return None
    size = sum(status.st_size for status in statuses.values())
    used = max(status.st_mtime for status in statuses.values())
    if kind != "features":
        return Held(kind, path, size, used)
    images = sum(s.st_size // DIGEST for name, s in statuses.items() if name.endswith(INDEX))
    return Held(kind, path, size, used, images, read_store(path))


def read_store(path: Path) -> dict[str, Any]:
    """Return what a shelf says of itself; empty where it says nothing that can be read."""
    try:
        said = json.loads((path / SHELF).read_bytes())
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


@contextlib.contextmanager
def locked(path: Path, alone: bool = False) -> Iterator[bool]:
    """Hold the lock of a shelf; the system lets go of it when the process ends, however it ends.

    Args:
        path: of the shelf.
        alone: let nobody else hold it, and do not wait; else share it, and wait for who is alone.

    Yields:
        Whether it is held; where it must be alone, it may not be.

    Raises:
        EnvironmentProblem: the system refuses.
    """
    file = _lock_file(path)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        file.close()


def _lock_file(path: Path) -> TextIO:
    lock = path.with_name(path.name + LOCK)
    try:
        return (make_dir(path.parent) / lock.name).open("a")
    except OSError as error:
        raise environment_problem(error, lock) from error


def remove(each: Held) -> bool:
    """Delete something from the cache, unless a training is using it; return whether it has gone.

    Raises:
        EnvironmentProblem: the system refuses.
    """
    try:
        if each.kind != "features":
            shutil.rmtree(each.path) if each.path.is_dir() else each.path.unlink(missing_ok=True)
            return True
        with locked(each.path, alone=True) as free:
            if free:
                # First out of sight, so that a half-deleted shelf is never read.
                going = each.path.with_name(f"{each.path.name}.{os.getpid()}{PART}")
                each.path.rename(going)
                shutil.rmtree(going)
            return free
    except FileNotFoundError:
        return True
    except OSError as error:
        raise environment_problem(error, each.path) from error


def trim(limit: int, keep: Path) -> list[Held]:
    """Delete the shelves of features that were unused the longest, until they fit a limit.

    Args:
        limit: bytes that all shelves together may take.
        keep: the shelf in use, which stays whatever it takes.

    Returns:
        Those that were deleted.
    """
    shelves = held("features")
    total = sum(each.size for each in shelves)
    gone = []
    for each in shelves:
        if total <= limit:
            break
        with contextlib.suppress(Exception):  # what cannot be deleted now is tried again next time
            if each.path != keep and remove(each):
                total -= each.size
                gone.append(each)
    return gone
