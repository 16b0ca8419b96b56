"""The state of a run folder: whether a training may write into it."""

from __future__ import annotations

from pathlib import Path

from zoo.modelfile import MODEL

# Locked by the process that trains; left by a training that did not finish.
LOCK = ".claim"
RECORD = "run.json"


def contents(folder: Path) -> list[Path]:
    """Return what is in a folder beside the lock, in order.

    Raises:
        OSError: it cannot be listed.
    """
    return sorted(entry for entry in folder.iterdir() if entry.name != LOCK)


def is_free(folder: Path) -> bool:
    """Whether a training may write into a folder: it is empty, or of one that did not finish.

    Such a folder was empty when it was claimed, so what it has was written by plugins.

    Raises:
        OSError: it cannot be listed.
    """
    unfinished = (folder / LOCK).exists() and not has_result(folder)
    return unfinished or not contents(folder)


def has_result(folder: Path) -> bool:
    """Whether a folder has the model or the record of a training."""
    return any((folder / name).exists() for name in (MODEL, RECORD))
