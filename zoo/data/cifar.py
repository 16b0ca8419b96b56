"""CIFAR-10 and CIFAR-100 as they were published for Python: pickles, which are read, never run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from zoo.data.arrays import Part, PublishedSet, file_size
from zoo.data.pickled import NotPlain, PickledArray, read_pickle, text
from zoo.errors import DataError

SIDE = 32
AGAIN = "delete it and fetch it again"


@dataclass(frozen=True)
class Cifar(PublishedSet):
    """One of the two.

    Args:
        train: the files to train on.
        test: the file to test on.
        meta: the file that names the classes.
        labels: what the labels are called in the former.
        names: what the names are called in the latter.
    """

    train: tuple[str, ...]
    test: str
    meta: str
    labels: str
    names: str

    @property
    def files(self) -> tuple[str, ...]:
        """The files that it consists of."""
        return (*self.train, self.test, self.meta)

    def class_names(self, folder: Path) -> tuple[str, ...]:
        """Read the names of the classes.

        Raises:
            DataError: the file is damaged, or does not hold them.
        """
        path = folder / self.meta
        found = self._open(path).get(self.names)
        try:
            names = tuple(text(name) for name in found) if type(found) is list else ()
        except NotPlain as error:
            raise DataError(f"{path} is not read: {error}", AGAIN) from error
        if len(names) < 2 or len(set(names)) < len(names) or not all(names):
            raise DataError(f"{path} does not name the classes of {self.title}", AGAIN)
        return names

    def read(self, folder: Path, split: str, n_classes: int) -> Part:
        """Read the pictures of `train` or `test`.

        Raises:
            DataError: a file is damaged, or does not hold pictures and labels.
        """
        files = self.train if split == "train" else (self.test,)
        parts = [self._read_batch(folder / file, n_classes) for file in files]
        images = np.concatenate([part.images for part in parts])
        return Part(
            # Each row of a file is a picture's red, then its green, then its blue.
            images.reshape(-1, 3, SIDE, SIDE).transpose(0, 2, 3, 1),
            tuple(label for part in parts for label in part.labels),
            tuple(name for part in parts for name in part.names),
        )

    def _read_batch(self, path: Path, n_classes: int) -> Part:
        """Read a file; its images are `[n, 3072]` here."""
        batch = self._open(path)
        data, labels = batch.get("data"), batch.get(self.labels)
        values = data.values if isinstance(data, PickledArray) else None
        if values is None or type(labels) is not list:
            message = f"{path} does not hold data and {self.labels} of {self.title}"
            raise DataError(message, AGAIN)
        if values.ndim != 2 or values.shape[1] != 3 * SIDE * SIDE:
            message = f"{path} holds data of shape {list(values.shape)}, not [n, 3072]"
            raise DataError(message, AGAIN)
        if len(labels) != len(values):
            raise DataError(f"{path} holds {len(values)} pictures and {len(labels)} labels", AGAIN)
        for place, label in enumerate(labels):
            if type(label) is not int or not 0 <= label < n_classes:
                what = label if type(label) is int else type(label).__name__
                message = f"{path}: the label of picture {place} is {what}"
                raise DataError(message, f"labels are 0 to {n_classes - 1}")
        names = tuple(f"{path.name} #{place}" for place in range(len(labels)))
        return Part(values, tuple(labels), names)

    def _open(self, path: Path) -> dict[str, Any]:
        file_size(path)
        try:
            content = read_pickle(path.read_bytes())
        except NotPlain as error:
            raise DataError(f"{path} is not read: {error}", AGAIN) from error
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}") from error
        if type(content) is not dict:
            raise DataError(f"{path} is no file of {self.title}", AGAIN)
        return content


CIFAR10 = Cifar(
    title="CIFAR-10",
    dataset="CIFAR10",
    inner="cifar-10-batches-py",
    sizes=(50_000, 10_000),
    train=tuple(f"data_batch_{number}" for number in range(1, 6)),
    test="test_batch",
    meta="batches.meta",
    labels="labels",
    names="label_names",
)

CIFAR100 = Cifar(
    title="CIFAR-100",
    dataset="CIFAR100",
    inner="cifar-100-python",
    sizes=(50_000, 10_000),
    train=("train",),
    test="test",
    meta="meta",
    labels="fine_labels",
    names="fine_label_names",
)
