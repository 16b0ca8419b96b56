"""Temporary files and folders: created, locked, published by a rename, removed after a kill.

A temporary is in the folder of what it becomes, and locked by its writer; the system releases the
lock with the process, however that ends. The first write of each process into a folder removes
what is not locked there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import time
from pathlib import Path

# Names of temporaries: PREFIX, host, process, random digits, PART.
PREFIX, PART = ".zoo-", ".part"
# Seconds after which a temporary of another host is taken for a dead process's, if it is unlocked:
# some network file systems lock within a host only.
FOREIGN_SECONDS = 86_400
# Folders from which this process has removed the leftovers of others.
_cleaned: set[str] = set()


def publish(temporary: Path, path: Path) -> None:
    """Fsync a file or folder, rename it, and fsync the folder that contains it.

    Raises:
        OSError: the system refuses.
    """
    fsync(temporary)
    temporary.replace(path)
    fsync(path.parent)


def fsync(path: Path) -> None:
    """Write a file, or the entries of a folder, to disk."""
    # Some file systems cannot fsync a folder, and one may be writable without being readable.
    ignored = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES) if path.is_dir() else ()
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        if error.errno not in ignored:
            raise


def temporary_name() -> str:
    """Return a new name, which identifies its process."""
    return f"{PREFIX}{os.uname().nodename}-{os.getpid()}-{os.urandom(6).hex()}{PART}"


def is_temporary(name: str) -> bool:
    """Whether a name is of a temporary."""
    return name.startswith(PREFIX) and name.endswith(PART)


def create_file(folder: Path) -> tuple[Path, int]:
    """Create and lock a temporary file; return it and its descriptor."""
    clean_once(folder)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    while True:
        path = folder / temporary_name()
        handle = os.open(path, flags, 0o666)
        if _lock(path, handle):
            return path, handle
        os.close(handle)


def create_folder(parent: Path) -> tuple[Path, int]:
    """Create and lock a temporary folder; return it and its descriptor."""
    clean_once(parent)
    while True:
        path = parent / temporary_name()
        path.mkdir()
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        if _lock(path, handle):
            return path, handle
        os.close(handle)


def _lock(path: Path, handle: int) -> bool:
    """Lock a new temporary; return False if another process took it for a dead one's meanwhile."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks, on which only its age is compared
    return path.exists()


def clean_once(folder: Path) -> None:
    """Remove the leftovers of other processes, once in each process."""
    if (key := str(folder.absolute())) not in _cleaned:
        _cleaned.add(key)
        remove_leftovers(folder)


def remove_leftovers(folder: Path) -> None:
    """Remove the temporaries of processes that were killed; those of live processes are locked."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if is_temporary(entry.name):
                with contextlib.suppress(OSError):
                    _remove_abandoned(folder / entry.name)


def _remove_abandoned(path: Path) -> None:
    """Remove a temporary unless its writer may be alive."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        own = path.name.startswith(f"{PREFIX}{os.uname().nodename}-")
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return
        except OSError:
            own = False  # no locks: as of another host
        if own or time.time() - os.fstat(handle).st_mtime > FOREIGN_SECONDS:
            remove(path)
    finally:
        os.close(handle)


def remove(path: Path) -> None:
    """Remove a temporary file or folder as far as the system allows."""
    if path.is_dir() and not path.is_symlink():
        import shutil  # here, because help and lists do not need it

        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
