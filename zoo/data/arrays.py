"""What the published sets share: files that hold pictures as one array, below one folder."""

from __future__ import annotations

import stat
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zoo.data.scan import shorten
from zoo.errors import DataError

# Several times the largest of the published files.
MAX_BYTES = 1 << 30


@dataclass(frozen=True)
class Part:
    """The pictures that were published together, to train on or to test on.

    Args:
        images: `[n, height, width, 3]` or `[n, height, width, 1]`, uint8.
        labels: of each picture, a position in the classes.
        names: of each picture: its file and its place there.
    """

    images: NDArray[np.uint8]
    labels: tuple[int, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class PublishedSet(ABC):
    """A set of pictures that everybody knows, as torchvision lays it out.

    Args:
        title: what people call it.
        dataset: what torchvision calls it.
        inner: where its files lie below the folder that torchvision was given.
        sizes: how many pictures were published in `train` and `test`.
    """

    title: str
    dataset: str
    inner: str
    sizes: tuple[int, int]

    @property
    @abstractmethod
    def files(self) -> tuple[str, ...]:
        """The files that it consists of."""

    @abstractmethod
    def class_names(self, folder: Path) -> tuple[str, ...]:
        """Return the names of the classes, in the order of the labels."""

    @abstractmethod
    def read(self, folder: Path, split: str, n_classes: int) -> Part:
        """Read the pictures of `train` or `test`.

        Raises:
            DataError: a file is damaged, or not what it should be.
        """

    def is_there(self, folder: Path, file: str) -> bool:
        """Whether a folder has one of the files."""
        return (folder / file).exists()

    def locate(self, place: Path) -> Path:
        """Find the folder with the files: at a place, or where torchvision puts it below that.

        Raises:
            DataError: it is not there, or not whole; says what is missing and how to get it.
        """
        hint = f"torchvision.datasets.{self.dataset}({str(place)!r}, download=True) puts it there"
        try:
            folder = place / self.inner
            if not folder.is_dir():
                if not place.is_dir():
                    what = "is not a folder" if place.exists() else "does not exist"
                    raise DataError(f"{place} {what}; {self.title} is looked for there", hint)
                folder = place
            missing = [file for file in self.files if not self.is_there(folder, file)]
        except OSError as error:
            raise DataError(f"cannot read {place}: {error.strerror or error}") from error
        if len(missing) == len(self.files) and folder == place:
            raise DataError(f"{place} holds no {self.inner}/ with {self.title}", hint)
        if missing:
            raise DataError(f"{folder} lacks {shorten(missing)} of {self.title}", hint)
        return folder


def file_size(path: Path) -> int:
    """Return the size of a file that is to be read whole.

    Raises:
        DataError: it is missing, not a regular file, or too large to be one of a published set.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    if not stat.S_ISREG(status.st_mode):
        raise DataError(f"{path} is not a regular file")
    if status.st_size > MAX_BYTES:
        raise DataError(f"{path} has {status.st_size:,} bytes, more than any file of such a set")
    return status.st_size
