"""The state of a run folder: whether a training may write into it."""

from __future__ import annotations

from pathlib import Path

from zoo.engine.training.checkpoints import list_checkpoints
from zoo.modelfile import CHECKPOINTS, MODEL
from zoo.temporaries import is_temporary

# Locked by the process that trains; left by a training that did not finish.
LOCK = ".claim"
RECORD = "run.json"


def contents(folder: Path) -> list[Path]:
    """Return what is in a folder beside lock, checkpoints and temporaries, in order.

    Raises:
        OSError: it cannot be listed.
    """
    entries = (entry for entry in folder.iterdir() if entry.name not in (LOCK, CHECKPOINTS))
    return sorted(entry for entry in entries if not is_temporary(entry.name))


def is_free(folder: Path) -> bool:
    """Whether a training may write into a folder: it is empty, or of one that saved nothing.

    Such a folder was empty when it was claimed, so what it has was written by plugins.

    Raises:
        OSError: it cannot be listed.
    """
    if has_result(folder):
        return False
    return (folder / LOCK).exists() or not contents(folder)


def has_result(folder: Path) -> bool:
    """Whether a folder has the model, the record or a checkpoint of a training."""
    written = any((folder / name).exists() for name in (MODEL, RECORD))
    return written or has_checkpoint(folder)


def has_checkpoint(folder: Path) -> bool:
    """Whether a training can be resumed from a checkpoint."""
    return bool(list_checkpoints(folder / CHECKPOINTS))
