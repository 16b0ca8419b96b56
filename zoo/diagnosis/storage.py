"""Check the cache, and the space on the disks that zoo writes to."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from zoo.cache import KINDS, entries
from zoo.diagnosis.check import ERROR, OK, WARNING, Check
from zoo.errors import EnvironmentProblem, ExitCode
from zoo.files import cache_dir, environment_problem, staging_folder

# A model file of a large network needs more than the one, its features and a cache of images more
# than the other.
FULL, LOW = 512 << 20, 4 << 30


def examine_cache() -> Iterator[Check]:
    """Yield the folder and size of the cache, after writing to it.

    Raises:
        EnvironmentProblem: it cannot be written.
    """
    folder = cache_dir()
    try:
        with staging_folder(folder) as staged:
            staged.write("test", b"1")
    except (OSError, EnvironmentProblem) as error:
        problem = environment_problem(error, folder) if isinstance(error, OSError) else error
        hint = f"{problem.hint}: " if problem.hint else ""
        hint += "XDG_CACHE_HOME sets the folder"
        raise EnvironmentProblem(problem.message, hint) from error
    sizes = {kind: sum(entry.size for entry in entries(kind)) for kind in KINDS}
    summary = f"{folder}, {_gib(sum(sizes.values()))}"
    yield Check("cache", summary, facts={"path": str(folder), "bytes": sizes})


def examine_disk() -> Iterator[Check]:
    """Yield the free space of the cache, the current folder and the folder of temporary files."""
    folders = {"cache": cache_dir(), "runs": Path.cwd(), "temporary": Path(tempfile.gettempdir())}
    disks: dict[int, list[str]] = {}
    for use, folder in folders.items():
        disks.setdefault(_existing(folder).stat().st_dev, []).append(use)
    for uses in disks.values():
        folder = _existing(folders[uses[0]])
        free = shutil.disk_usage(folder).free
        summary = f"{_gib(free)} free in {folder} (for {', '.join(uses)} files)"
        yield Check("disk", summary, *_judge(free), facts={"uses": uses, "free": free})
    if not os.access(folders["runs"], os.W_OK):
        summary = f"the current folder {folders['runs']} cannot be written"
        yield Check("disk", summary, WARNING, "write runs to another folder")


def _judge(free: int) -> tuple[str, str | None, int]:
    """Return status, hint and exit code for a number of free bytes."""
    if free < FULL:
        hint = "free some space; `zoo cache clear` deletes what can be computed again"
        return ERROR, hint, ExitCode.ENVIRONMENT
    if free < LOW:
        return WARNING, "features and runs may need more", ExitCode.DONE
    return OK, None, ExitCode.DONE


def _existing(folder: Path) -> Path:
    """Return a folder, or its nearest parent that exists, which has the same free space."""
    return next(parent for parent in (folder, *folder.parents) if parent.exists())


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
