"""List folders of images, and format names for messages."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from zoo.data.formats import is_image
from zoo.errors import DataError, listed

# Created by archivers and file servers; some contain thumbnails of every image.
LITTER = frozenset({"__MACOSX", "@eaDir"})


def is_hidden(name: str) -> bool:
    """Whether a file or folder of that name is ignored, such as `.ipynb_checkpoints`."""
    return name.startswith(".") or name in LITTER


def list_folder(folder: Path) -> list[os.DirEntry[str]]:
    """List a folder by name.

    Raises:
        DataError: it cannot be listed.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"cannot read the folder {folder}: {error.strerror or error}") from error


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one, and not hidden."""
    try:
        return not is_hidden(entry.name) and entry.is_dir()
    except OSError:
        return False  # a link to itself


def is_data_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder that may have data: not one of trainings, see `has_runs`."""
    return is_folder(entry) and not has_runs(Path(entry.path))


def has_runs(folder: Path) -> bool:
    """Whether a folder is that of a training, or has such folders and no others, and no images.

    By default, a training writes into `runs/` in the current folder, which may be that of the data.
    """
    if _is_run(folder):
        return True
    runs = 0
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_folder(entry):
                    if entry.is_symlink() or not _is_run(Path(entry.path)):
                        return False
                    runs += 1
                elif is_image(entry.name):
                    return False
    except OSError:
        return False  # listing it for its images reports that
    return runs > 0


def _is_run(folder: Path) -> bool:
    """Whether a training wrote a folder: it stores its plan first, and its record last."""
    written = ("checkpoints/plan.json",), ("run.json", "model.safetensors")
    return any(all((folder / name).is_file() for name in names) for names in written)


def shorten(names: Iterable[str], most: int = 5, separator: str = ", ") -> str:
    """Join the first names for a message, and count the others."""
    return listed(list(names), most, separator)
