"""The cache folder: list its entries, bound their size, delete them.

Every entry can be computed or downloaded again, so any of them may be deleted at any time. Feature
stores (`zoo.engine.features.store`) that a training reads are skipped: it has locked them.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from zoo.errors import EnvironmentProblem, UsageError, did_you_mean
from zoo.files import cache_dir, environment_problem, make_dir, remove_folder
from zoo.temporaries import clean_once, is_temporary

KINDS = ("features", "conversions", "weights", "catalogues", "downloads")
TRIMMED = ("features", "conversions")
STORE_FILE, ABOUT_FILE = "store.json", "about.json"
LOCK = ".lock"
INDEX, ROWS, PART = ".index", ".rows", ".part"
DIGEST = 32


@dataclass(frozen=True)
class CacheEntry:
    """A file or folder in the cache.

    Args:
        kind: one of `KINDS`.
        path: of the file or folder.
        size: on disk, in bytes.
        used: time of the last read or write, in seconds since 1970.
        images: number of images in a feature store; None for other kinds.
        metadata: of a feature store or a converted network; empty for other kinds.
    """

    kind: str
    path: Path
    size: int
    used: float
    images: int | None = None
    metadata: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The backbone's id for a feature store or a converted network, else the file name."""
        return str(self.metadata.get("backbone") or self.path.name)


def features_dir() -> Path:
    """Return the folder of all feature stores."""
    return cache_dir() / "features"


def conversions_dir() -> Path:
    """Return the folder of all converted networks."""
    return cache_dir() / "conversions"


def entries(kind: str) -> list[CacheEntry]:
    """Return the entries of a kind, the least recently used first."""
    try:
        paths = list((cache_dir() / kind).iterdir())
    except OSError:
        return []
    described = [entry for path in paths if (entry := _describe(kind, path)) is not None]
    return sorted(described, key=lambda entry: (entry.used, entry.path.name))


def select(patterns: Sequence[str]) -> list[CacheEntry]:
    """Return the cache entries that match any pattern; all without a pattern.

    Args:
        patterns: each a kind of `KINDS`, or a shell-style pattern of names.

    Raises:
        UsageError: a pattern is neither a kind nor matches an entry.
    """
    cached = [entry for kind in KINDS for entry in entries(kind)]
    if not patterns:
        return cached
    for pattern in patterns:
        if pattern not in KINDS and not any(_matches(entry, pattern) for entry in cached):
            names = [*KINDS, *sorted({entry.name for entry in cached})]
            hint = did_you_mean(pattern, names, f"give a NAME, or one of {', '.join(KINDS)}")
            raise UsageError(f"no cache entry matches {pattern!r}", hint)
    return [
        entry for entry in cached if any(p == entry.kind or _matches(entry, p) for p in patterns)
    ]


def _matches(entry: CacheEntry, pattern: str) -> bool:
    """Return whether a pattern matches an entry's name, with or without source, or its file."""
    names = (entry.name, entry.name.rpartition("/")[2], entry.path.name)
    return any(fnmatchcase(name, pattern) for name in names)


def _describe(kind: str, path: Path) -> CacheEntry | None:
    """Return the entry at a path; None for a lock or temporary, and where it was deleted."""
    if is_temporary(path.name):
        return None
    try:
        if path.is_dir():
            stats = {inner.name: inner.stat() for inner in path.iterdir()}
        else:
            stats = {path.name: path.stat()}
    except OSError:
        return None
    if path.name.endswith(LOCK) or not stats:
        return None
    size = sum(stat.st_size for stat in stats.values())
    used = max(stat.st_mtime for stat in stats.values())
    if kind == "conversions":
        return CacheEntry(kind, path, size, used, None, read_store(path, ABOUT_FILE))
    if kind != "features":
        return CacheEntry(kind, path, size, used)
    images = sum(s.st_size // DIGEST for name, s in stats.items() if name.endswith(INDEX))
    return CacheEntry(kind, path, size, used, images, read_store(path))


def stored_images(name: str) -> int:
    """Return the number of images in the feature store of a name; 0 where there is none."""
    entry = _describe("features", features_dir() / name)
    return (entry.images or 0) if entry is not None else 0


def read_store(path: Path, name: str = STORE_FILE) -> dict[str, Any]:
    """Return the metadata of an entry, from its file of this name; empty if missing or damaged."""
    try:
        metadata = json.loads((path / name).read_bytes())
    except (OSError, ValueError):
        return {}
    return metadata if isinstance(metadata, dict) else {}


@contextlib.contextmanager
def locked(path: Path, exclusive: bool = False) -> Iterator[bool]:
    """Lock a feature store; the system releases the lock when the process ends in any way.

    Args:
        path: of the store.
        exclusive: non-blocking exclusive lock; otherwise a blocking shared lock.

    Yields:
        Whether the lock was acquired; always, where it is shared.

    Raises:
        EnvironmentProblem: the system refuses.
    """
    file = _lock_file(path)
    try:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB if exclusive else fcntl.LOCK_SH)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        file.close()


def _lock_file(path: Path) -> TextIO:
    lock = path.with_name(path.name + LOCK)
    clean_once(path.parent)
    try:
        return (make_dir(path.parent) / lock.name).open("a")
    except OSError as error:
        raise environment_problem(error, lock) from error


def remove(entry: CacheEntry) -> bool:
    """Delete an entry unless a training is using it; return whether it was deleted.

    Raises:
        EnvironmentProblem: the system refuses.
    """
    try:
        if entry.kind != "features":
            shutil.rmtree(entry.path) if entry.path.is_dir() else entry.path.unlink(missing_ok=True)
            return True
        with locked(entry.path, exclusive=True) as acquired:
            if acquired:
                remove_folder(entry.path)
            return acquired
    except FileNotFoundError:
        return True
    except OSError as error:
        raise environment_problem(error, entry.path, "delete") from error


class Cleared(NamedTuple):
    """What became of entries that were to be deleted.

    Args:
        deleted: entries.
        used: entries that a training is using.
        problem: that the system refused some; None where it did not.
    """

    deleted: list[CacheEntry]
    used: list[CacheEntry]
    problem: EnvironmentProblem | None


def clear(chosen: Iterable[CacheEntry]) -> Cleared:
    """Delete every entry that is not in use and that the system lets go."""
    deleted: list[CacheEntry] = []
    used: list[CacheEntry] = []
    errors: list[EnvironmentProblem] = []
    for entry in chosen:
        try:
            (deleted if remove(entry) else used).append(entry)
        except EnvironmentProblem as error:
            errors.append(error)
    message = "; ".join(error.message for error in errors)
    problem = EnvironmentProblem(message, errors[0].hint) if errors else None
    return Cleared(deleted, used, problem)


def trim(limit: int, keep: Path) -> list[CacheEntry]:
    """Delete the least recently used feature stores and converted networks until the rest fit.

    Args:
        limit: total size of them, in bytes.
        keep: path of the store in use, which is never deleted.

    Returns:
        The deleted entries.
    """
    stores = sorted((e for kind in TRIMMED for e in entries(kind)), key=lambda e: e.used)
    total = sum(entry.size for entry in stores)
    deleted = []
    for entry in stores:
        if total <= limit:
            break
        with contextlib.suppress(Exception):  # retried by the next training
            if entry.path != keep and remove(entry):
                total -= entry.size
                deleted.append(entry)
    return deleted
