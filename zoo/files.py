"""Where zoo keeps things, and the one writer for files.

A file appears whole or not at all: it is written beside its final place, flushed to the disk and
renamed. Nothing here imports torch.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, BinaryIO

from zoo.errors import EnvironmentProblem


def _base_dir(variable: str, fallback: str) -> Path:
    stated = os.environ.get(variable, "")
    return Path(stated) if Path(stated).is_absolute() else Path.home() / fallback


def cache_dir() -> Path:
    """`$XDG_CACHE_HOME/zoo`: catalogues and converted weights; safe to delete."""
    return _base_dir("XDG_CACHE_HOME", ".cache") / "zoo"


def config_dir() -> Path:
    """`$XDG_CONFIG_HOME/zoo`: the user's `registry.toml`."""
    return _base_dir("XDG_CONFIG_HOME", ".config") / "zoo"


def environment_problem(error: OSError, path: Path) -> EnvironmentProblem:
    """Return a refusal by the system as an error for people."""
    hints = {
        errno.ENOSPC: "free some disk space and run it again",
        errno.EDQUOT: "your disk quota is used up",
        errno.EROFS: "the file system is read-only; choose another place",
        errno.EACCES: "check the permissions, or choose another place",
        errno.EPERM: "check the permissions, or choose another place",
    }
    reason = error.strerror or str(error)
    return EnvironmentProblem(f"cannot write {path}: {reason}", hints.get(error.errno or 0))


def make_dir(path: Path) -> Path:
    """Create a folder and its parents where they do not exist, and return it.

    Raises:
        EnvironmentProblem: the system refuses.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise environment_problem(error, path) from error
    return path


@contextlib.contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes its name only when the block ends well.

    Raises:
        EnvironmentProblem: the disk is full, read-only or closed to us; `path` is as it was.
    """
    import tempfile

    make_dir(path.parent)
    staged: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        staged = Path(name)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp asks for 0600; a file of ours gets what the umask leaves, like any other.
        mask = os.umask(0)
        os.umask(mask)
        staged.chmod(0o666 & ~mask)
        staged.replace(path)
        staged = None
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        raise environment_problem(error, path) from error
    finally:
        if staged is not None:
            staged.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a whole file, or leave what was there.

    Raises:
        EnvironmentProblem: the system refuses.
    """
    with writing(path) as file:
        file.write(data)


def library_versions(*libraries: str) -> dict[str, str]:
    """Return the versions of those that are installed."""
    found = {}
    for library in libraries:
        with contextlib.suppress(PackageNotFoundError):
            found[library] = version(library)
    return found


def canonical_json(value: Any) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
