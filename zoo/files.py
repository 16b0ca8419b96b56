"""Cache, configuration and data folders, and the one way to write files and folders.

A file or a folder is written under a temporary name beside its own, fsynced and renamed, so that it
is complete or absent, also after a loss of power. A temporary is locked by its writer; those of
processes that were killed are removed by the next one that writes into the same folder. Nothing
here imports torch.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from io import FileIO
from pathlib import Path
from typing import Any, BinaryIO

from zoo.errors import EnvironmentProblem, WeightsError
from zoo.temporaries import create_file, create_folder, fsync, publish, remove, temporary_name

MANIFEST = "manifest.json"
MAX_MANIFEST = 1 << 20


class NotRegular(OSError):
    """A folder, a FIFO, a socket or a device where a file is expected."""


def _base_dir(variable: str, fallback: str) -> Path:
    stated = os.environ.get(variable, "")
    return Path(stated) if Path(stated).is_absolute() else expand_home(Path("~") / fallback)


def expand_home(path: Path) -> Path:
    """Replace a leading `~` of a path.

    Raises:
        EnvironmentProblem: the user has no home folder.
    """
    try:
        return path.expanduser()
    except RuntimeError as error:
        hint = "set HOME, or XDG_CACHE_HOME, XDG_CONFIG_HOME and XDG_DATA_HOME"
        raise EnvironmentProblem(f"{path}: the user has no home folder", hint) from error


def cache_dir() -> Path:
    """Return `$XDG_CACHE_HOME/zoo`; all of its content is safe to delete."""
    return _base_dir("XDG_CACHE_HOME", ".cache") / "zoo"


def config_dir() -> Path:
    """Return `$XDG_CONFIG_HOME/zoo`, the folder of the user's `registry.toml`."""
    return _base_dir("XDG_CONFIG_HOME", ".config") / "zoo"


def data_dir() -> Path:
    """Return `$XDG_DATA_HOME/zoo`, the folder of the user's registered models."""
    return _base_dir("XDG_DATA_HOME", ".local/share") / "zoo"


def environment_problem(error: OSError, path: Path, act: str = "write") -> EnvironmentProblem:
    """Return a write, or another act, that failed as a `ZooError` with a hint."""
    hints = {
        errno.ENOSPC: "free some disk space and run it again",
        errno.EDQUOT: "your disk quota is exceeded",
        errno.EROFS: "the file system is read-only; choose another folder",
        errno.EACCES: "check the permissions, or choose another folder",
        errno.EPERM: "check the permissions, or choose another folder",
    }
    reason = error.strerror or str(error)
    return EnvironmentProblem(f"cannot {act} {path}: {reason}", hints.get(error.errno or 0))


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


class AtomicFile:
    """A file that is written under a temporary name, and replaces `path` when it is committed.

    A context manager; without `commit` it ends as if nothing had been written. `writing` is the
    shorter form, of a block that writes the whole file.

    Args:
        path: of the file.

    Attributes:
        file: open for writing and reading, unbuffered.
        temporary: path until it is committed.

    Raises:
        OSError: the system refuses.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        if path.exists():
            _check_regular(path.stat().st_mode, path)
        self.temporary, handle = create_file(path.parent)
        self.file = os.fdopen(handle, "w+b", buffering=0)

    def __enter__(self) -> AtomicFile:
        return self

    def __exit__(self, *exception: object) -> None:
        self.discard()

    def write(self, data: bytes | memoryview) -> None:
        """Write all of the data.

        Raises:
            OSError: the system refuses.
        """
        view = memoryview(data).cast("B")
        while view:
            view = view[self.file.write(view) :]

    def commit(self) -> None:
        """Fsync the file, and rename it to its path.

        Raises:
            OSError: the system refuses; the path is unchanged, and the file is still open.
        """
        publish(self.temporary, self.path)
        self.file.close()

    def discard(self) -> None:
        """Remove the file, unless it is committed."""
        if not self.file.closed:
            self.temporary.unlink(missing_ok=True)
            self.file.close()


@contextlib.contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` when the block ends without an error.

    Raises:
        EnvironmentProblem: the system refuses; `path` is unchanged.
    """
    make_dir(path.parent)
    try:
        with AtomicFile(path) as staged:
            with open(os.dup(staged.file.fileno()), "wb") as file:  # noqa: PTH123 - a descriptor
                yield file
            staged.commit()
    except OSError as error:
        raise environment_problem(error, path) from error


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Write a file atomically.

    Raises:
        EnvironmentProblem: the system refuses; `path` is unchanged.
    """
    with writing(path) as file:
        file.write(data)


class StagedFolder:
    """A folder under a temporary name, and its files.

    Args:
        path: temporary one of the folder.

    Attributes:
        files: size and sha256 by name of each file written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: dict[str, dict[str, Any]] = {}

    def write(self, name: str, data: bytes | memoryview | Iterable[bytes]) -> None:
        """Write and fsync a file.

        Args:
            name: of the file, or its path in the folder.
            data: its content, whole or in parts.

        Raises:
            OSError: the system refuses.
        """
        import hashlib  # here, because lists and tables do not need it

        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        digest, size = hashlib.sha256(), 0
        with target.open("xb") as file:
            for chunk in [data] if isinstance(data, (bytes, memoryview)) else data:
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
            file.flush()
            os.fsync(file.fileno())
        if target.parent != self.path:
            fsync(target.parent)
        self.files[name] = {"sha256": digest.hexdigest(), "size": size}

    def add(self, name: str) -> None:
        """Fsync a file that another library has written into the folder, and record its digest.

        Raises:
            OSError: the system refuses.
        """
        import hashlib  # here, because lists and tables do not need it

        with (self.path / name).open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            os.fsync(file.fileno())
            size = os.fstat(file.fileno()).st_size
        self.files[name] = {"sha256": digest, "size": size}


@contextlib.contextmanager
def staging_folder(parent: Path) -> Iterator[StagedFolder]:
    """Create a temporary folder, which is removed after the block unless that has renamed it.

    Args:
        parent: the folder to create it in.

    Raises:
        OSError: the system refuses.
        EnvironmentProblem: the parent cannot be created.
    """
    temporary, handle = create_folder(make_dir(parent))
    try:
        yield StagedFolder(temporary)
    finally:
        remove(temporary)
        os.close(handle)


@contextlib.contextmanager
def writing_folder(path: Path) -> Iterator[StagedFolder]:
    """Write a new folder, whole or not at all, with a manifest of its files.

    Write each file with `StagedFolder.write`. When the block ends without an error, `manifest.json`
    with size and sha256 of each is written last, and the folder gets its name.

    Args:
        path: of the folder, which does not exist.

    Raises:
        EnvironmentProblem: the system refuses, or the folder exists; nothing is left.
    """
    try:
        with staging_folder(path.parent) as folder:
            yield folder
            folder.write(MANIFEST, canonical_json(folder.files).encode())
            publish(folder.path, path)
    except OSError as error:
        raise environment_problem(error, path) from error


def verify_folder(path: Path, content: bool = True) -> dict[str, str]:
    """Check a folder that `writing_folder` wrote, and return the sha256 of each file by name.

    Args:
        path: of the folder.
        content: read every file and compare its digest; else only the sizes are compared, for a
            caller that compares the digest of what it reads.

    Raises:
        WeightsError: the manifest or a file is missing or damaged; names the first such.
    """
    import hashlib

    digests = {}
    for name, (size, sha256) in _read_manifest(path).items():
        target = path / name
        try:
            with open_regular(target) as file:
                actual = os.fstat(file.fileno()).st_size
                if actual != size:
                    raise WeightsError(f"{target} has {actual:,} bytes, expected {size:,}")
                if content and hashlib.file_digest(file, "sha256").hexdigest() != sha256:
                    raise WeightsError(f"{target} is damaged: its content has another sha256")
        except OSError as error:
            raise WeightsError(f"cannot read {target}: {error.strerror or error}") from error
        digests[name] = sha256
    return digests


def _read_manifest(folder: Path) -> dict[str, tuple[int, str]]:
    """Return size and sha256 of each file of a folder.

    Raises:
        WeightsError: the manifest is missing or damaged.
    """
    path = folder / MANIFEST
    try:
        with open_regular(path) as file:
            plain = parse_json(file.read(MAX_MANIFEST))
        files = {name: (int(entry["size"]), str(entry["sha256"])) for name, entry in plain.items()}
        if any(Path(name).is_absolute() or ".." in Path(name).parts for name in files):
            raise ValueError("a file is outside of its folder")
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{path} is damaged: {error}") from error
    return files


def remove_folder(path: Path) -> None:
    """Remove a folder that other processes see whole or not at all.

    Raises:
        OSError: the system refuses.
    """
    temporary = path.with_name(temporary_name())
    path.rename(temporary)
    remove(temporary)


def open_regular(path: Path) -> FileIO:
    """Open a regular file for reading; a FIFO or a device is refused without opening it.

    Raises:
        OSError: it is missing, unreadable, or not a regular file, which `strerror` names.
    """
    _check_regular(path.stat().st_mode, path)
    # Without waiting, where it has become a FIFO since.
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        _check_regular(os.fstat(handle).st_mode, path)
    except OSError:
        os.close(handle)
        raise
    return FileIO(handle)


def _check_regular(mode: int, path: Path) -> None:
    if not stat.S_ISREG(mode):
        kinds = {stat.S_IFDIR: "folder", stat.S_IFIFO: "FIFO", stat.S_IFSOCK: "socket"}
        kind = kinds.get(stat.S_IFMT(mode), "device")
        raise NotRegular(errno.EINVAL, f"it is a {kind}, not a regular file", str(path))


def library_versions(*libraries: str) -> dict[str, str]:
    """Return the versions of those libraries that are installed."""
    versions = ((library, _installed_version(library)) for library in libraries)
    return {library: installed for library, installed in versions if installed is not None}


@cache
def _installed_version(library: str) -> str | None:
    """Return the version of a library, whose metadata take a millisecond to read."""
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def canonical_json(value: Any) -> str:
    """Return the canonical JSON of a value: sorted keys, no spaces, no NaN."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def parse_json(data: str | bytes) -> Any:
    """Parse JSON in UTF-8 that another program may have written.

    Raises:
        ValueError: it is not valid, a name appears twice in an object, or is not text.
        RecursionError: it is nested too deeply.
    """
    text = data if isinstance(data, str) else data.decode()
    return json.loads(text, object_pairs_hook=_unique)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a name appears twice")
    for name, _ in pairs:
        name.encode()  # raises for an unpaired surrogate
    return dict(pairs)
