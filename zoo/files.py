"""Cache and configuration folders, and atomic file writes.

A file is written to a temporary path in its folder, fsynced and renamed, so it is complete or
absent. Nothing here imports torch.
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
    """Return `$XDG_CACHE_HOME/zoo`; all of its content is safe to delete."""
    return _base_dir("XDG_CACHE_HOME", ".cache") / "zoo"


def config_dir() -> Path:
    """Return `$XDG_CONFIG_HOME/zoo`, the folder of the user's `registry.toml`."""
    return _base_dir("XDG_CONFIG_HOME", ".config") / "zoo"


def environment_problem(error: OSError, path: Path) -> EnvironmentProblem:
    """Return a failed write as a `ZooError` with a hint."""
    hints = {
        errno.ENOSPC: "free some disk space and run it again",
        errno.EDQUOT: "your disk quota is exceeded",
        errno.EROFS: "the file system is read-only; choose another folder",
        errno.EACCES: "check the permissions, or choose another folder",
        errno.EPERM: "check the permissions, or choose another folder",
    }
    reason = error.strerror or str(error)
    return EnvironmentProblem(f"cannot write {path}: {reason}", hints.get(error.errno or 0))


def make_dir(path: Path) -> Path:
    """Create a folder and its parents as needed, and return it.

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
    """Open a temporary file that replaces `path` when the block ends without an error.

    Raises:
        EnvironmentProblem: the system refuses; `path` is unchanged.
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
        # mkstemp sets mode 0600; apply the umask, as `open` does.
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
    """Write a file atomically.

    Raises:
        EnvironmentProblem: the system refuses; `path` is unchanged.
    """
    with writing(path) as file:
        file.write(data)


def library_versions(*libraries: str) -> dict[str, str]:
    """Return the versions of those libraries that are installed."""
    versions = {}
    for library in libraries:
        with contextlib.suppress(PackageNotFoundError):
            versions[library] = version(library)
    return versions


def canonical_json(value: Any) -> str:
    """Return the canonical JSON of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )
