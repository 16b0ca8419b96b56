"""MNIST and Fashion-MNIST as they were published: idx files, packed by gzip or not."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zoo.data.arrays import MAX_BYTES, Part, PublishedSet, file_size
from zoo.errors import DataError

SIDE = 28
AGAIN = "delete it and fetch it again"
PREFIXES = {"train": "train", "test": "t10k"}


@dataclass(frozen=True)
class Mnist(PublishedSet):
    """One of the two.

    Args:
        classes: names in the order of the labels, which no file holds.
    """

    classes: tuple[str, ...]

    @property
    def files(self) -> tuple[str, ...]:
        """The files that it consists of, each as it is called unpacked."""
        return tuple(name for split in PREFIXES for name in _names(split))

    def is_there(self, folder: Path, file: str) -> bool:
        """Whether a folder has one of the files, packed or not."""
        return any(super(Mnist, self).is_there(folder, name) for name in (file, f"{file}.gz"))

    def class_names(self, folder: Path) -> tuple[str, ...]:
        """Return the names that torchvision gives the classes."""
        return self.classes

    def read(self, folder: Path, split: str, n_classes: int) -> Part:
        """Read the pictures of `train` or `test`.

        Raises:
            DataError: a file is damaged, or does not hold pictures or labels.
        """
        paths = [_unpacked_first(folder, name) for name in _names(split)]
        images = _read_idx(paths[0], (SIDE, SIDE))
        labels = _read_idx(paths[1], ())
        if len(images) != len(labels):
            message = f"{paths[0]} holds {len(images)} pictures, {paths[1]} {len(labels)} labels"
            raise DataError(message, "fetch both again")
        if (wrong := np.flatnonzero(labels >= n_classes)).size:
            first = int(wrong[0])
            message = f"{paths[1]}: the label of picture {first} is {labels[first]}"
            raise DataError(message, f"labels are 0 to {n_classes - 1}")
        # Without .gz, so that packing changes nothing.
        name = _names(split)[0]
        return Part(
            images[..., np.newaxis],
            tuple(labels.tolist()),
            tuple(f"{name} #{place}" for place in range(len(images))),
        )


def _names(split: str) -> tuple[str, str]:
    prefix = PREFIXES[split]
    return f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"


def _unpacked_first(folder: Path, name: str) -> Path:
    return folder / name if (folder / name).exists() else folder / f"{name}.gz"


def _read_idx(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Read an idx file of bytes, `[n, *shape]`."""
    size = file_size(path)
    packed = path.suffix == ".gz"
    try:
        # Read, not mapped: a mapped file that is cut off later would end the process.
        with gzip.open(path) if packed else path.open("rb") as file:
            return _parse_idx(file, path, shape, None if packed else size)
    except EOFError as error:
        raise DataError(f"{path} is cut off", AGAIN) from error
    except (zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path} is damaged: {error}", AGAIN) from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error


def _parse_idx(
    file: BufferedIOBase, path: Path, shape: tuple[int, ...], size: int | None
) -> NDArray[np.uint8]:
    """Parse an idx file; its header must account for every byte.

    Args:
        file: to read from.
        path: for messages.
        shape: of one item.
        size: of the whole file, None where that is not known before it is unpacked.
    """
    length = 8 + 4 * len(shape)
    header = file.read(length)
    if len(header) < length:
        raise DataError(f"{path} is cut off: it has {len(header)} bytes", AGAIN)
    magic, count, *sides = struct.unpack(f">{2 + len(shape)}I", header)
    # The third byte says uint8, the last how many dimensions.
    if magic != 0x0800 + 1 + len(shape):
        message = f"{path} is no idx file of {'pictures' if shape else 'labels'}"
        raise DataError(f"{message}: it begins with {header[:4].hex()}", AGAIN)
    if tuple(sides) != shape:
        stated = " x ".join(str(side) for side in sides)
        raise DataError(f"{path} holds pictures of {stated}, not {SIDE} x {SIDE}", AGAIN)
    expected = count * math.prod(shape)
    # Before reading: to ask for what a header states may take all memory.
    if expected > MAX_BYTES or (size is not None and size != length + expected):
        has = "" if size is None else f", and it has {size - length:,}"
        raise DataError(f"{path} states {count:,} items, which take {expected:,} bytes{has}", AGAIN)
    content = file.read(expected + 1)
    if len(content) != expected:
        than = "fewer" if len(content) < expected else "more"
        raise DataError(f"{path} holds {than} bytes than the {count:,} items it states", AGAIN)
    return np.frombuffer(content, np.uint8).reshape(count, *shape)


# fmt: off
MNIST = Mnist(
    title="MNIST",
    dataset="MNIST",
    inner="MNIST/raw",
    sizes=(60_000, 10_000),
    classes=(
        "0 - zero", "1 - one", "2 - two", "3 - three", "4 - four", "5 - five", "6 - six",
        "7 - seven", "8 - eight", "9 - nine",
    ),
)

FASHION_MNIST = Mnist(
    title="Fashion-MNIST",
    dataset="FashionMNIST",
    inner="FashionMNIST/raw",
    sizes=(60_000, 10_000),
    classes=(
        "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker",
        "Bag", "Ankle boot",
    ),
)
# fmt: on
