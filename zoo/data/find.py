"""Find the images of paths: files, folders and patterns."""

from __future__ import annotations

import glob
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from zoo.data.formats import may_be_image
from zoo.data.images import Unreadable
from zoo.data.scan import is_folder, is_hidden, list_folder
from zoo.errors import DataError


def in_folders(images: Iterable[Any]) -> Iterator[Any]:
    """Yield images, those in a folder in its place, in the order of their names.

    Args:
        images: of any kind. A folder is read with its subfolders; what is hidden or has no suffix
            of an image is left out.
    """
    for image in images:
        if isinstance(image, (str, PathLike)) and os.path.isdir(image):  # noqa: PTH112 - any text
            inner = _in_folder(Path(image), ())
            first = next(inner, None)
            yield (
                Unreadable(str(image), "it is a folder without images") if first is None else first
            )
            yield from inner
        else:
            yield image


def find_images(paths: Iterable[str]) -> Iterator[Any]:
    """Yield the images of files, folders and patterns.

    Args:
        paths: files, folders, or patterns with `*`, `?`, `[...]` and `**`, which a shell has not
            expanded. A path that exists is never a pattern.
    """
    for path in paths:
        if glob.has_magic(path) and not os.path.lexists(path):
            yield from _matches(path)
        else:
            yield from in_folders([path])


@dataclass(frozen=True)
class FoundImages:
    """The images of files, folders and patterns, found anew by each iteration.

    Args:
        paths: as for `find_images`.
    """

    paths: Sequence[str]

    def __iter__(self) -> Iterator[Any]:
        return find_images(self.paths)


def count_images(images: Iterable[Any], limit: int) -> int | None:
    """Return the number of images, or a limit if there are more, without reading them.

    Args:
        images: as returned by `as_many`.
        limit: at which to stop.

    Returns:
        None where only an iterator yields them.
    """
    if not isinstance(images, (Sequence, FoundImages)) and not hasattr(images, "ndim"):
        return None
    return sum(1 for _ in itertools.islice(in_folders(images), limit))


def _matches(pattern: str) -> Iterator[Any]:
    """Yield the images that match a pattern, each once, in the order of their paths."""
    matches = glob.glob(pattern, recursive=True)  # noqa: PTH207 - any text, absolute too
    images = {str(image): image for image in in_folders(matches)}
    if not images:
        yield Unreadable(pattern, "no file matches")
    for path in sorted(images):
        yield images[path]


def _in_folder(folder: Path, above: tuple[tuple[int, int], ...]) -> Iterator[Any]:
    """Yield the images in a folder and its subfolders, in the order of their names.

    Args:
        folder: to list.
        above: device and number of the folders that it is in, since a link may lead back to one.
    """
    try:
        status = folder.stat()
        identity = (status.st_dev, status.st_ino)
        entries = [] if identity in above else list_folder(folder)
    except (DataError, OSError) as error:
        cause = error.__cause__ if isinstance(error, DataError) else error
        yield Unreadable(str(folder), getattr(cause, "strerror", None) or str(error))
        return
    for entry in entries:
        if is_folder(entry):
            yield from _in_folder(Path(entry.path), (*above, identity))
        elif may_be_image(entry.name) and not is_hidden(entry.name):
            yield entry.path
