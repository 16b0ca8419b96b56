"""Published datasets by name, `cifar10:DIR`, read by `torchvision.datasets`.

The files of CIFAR are pickles, which may execute code. Each is verified against the md5 in
torchvision before torchvision opens it, so that only the published files are unpickled.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from zoo.data.names import nfc, positions
from zoo.data.scan import shorten
from zoo.data.schema import Schema
from zoo.data.split import ImageData, Split, draw_held_out
from zoo.data.split_choice import choose_split, describe_no_validation
from zoo.errors import DataError, UsageError, did_you_mean, one_line
from zoo.tasks.classification.data.hold_out import (
    check_known,
    check_single_images,
    describe_hold_out,
)


@dataclass(frozen=True)
class PublishedDataset:
    """A dataset that torchvision reads.

    Args:
        title: its common name.
        dataset: name of its class in `torchvision.datasets`.
    """

    title: str
    dataset: str


PUBLISHED: Mapping[str, PublishedDataset] = {
    "cifar10": PublishedDataset("CIFAR-10", "CIFAR10"),
    "cifar100": PublishedDataset("CIFAR-100", "CIFAR100"),
    "mnist": PublishedDataset("MNIST", "MNIST"),
    "fashion-mnist": PublishedDataset("Fashion-MNIST", "FashionMNIST"),
}


@dataclass(frozen=True, eq=False)
class PublishedSplit(Split):
    """Images of a published dataset, in memory.

    Args:
        name: of the split.
        images: `[n, height, width, channels]`, uint8; one channel or three.
        targets: class index of each image.
        names: of each image: its file and its position in it.
    """

    name: str
    images: NDArray[np.uint8]
    targets: tuple[int, ...]
    names: tuple[str, ...]

    thread_safe: ClassVar[bool] = True

    def where(self, index: int) -> str:
        """Return the name of an image."""
        return self.names[index]

    def image(self, index: int) -> Image.Image:
        """Return an image as 8-bit RGB; grey is repeated over the channels."""
        pixels = self.images[index]
        if pixels.shape[2] == 1:
            pixels = pixels[:, :, 0]
        return Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")

    def content(self, index: int) -> bytes:
        """Return the shape and the pixels of an image."""
        pixels = self.images[index]
        shape, values = f"{pixels.shape}".encode(), pixels.tobytes()
        return bytes(shape + values)


def parse_published(source: str | Path) -> tuple[PublishedDataset, Path] | None:
    """Parse `NAME:DIR` into a dataset and its folder; return None for a path.

    Raises:
        UsageError: it is neither an existing path nor a known dataset.
    """
    text = str(source)
    # Unlike pathlib, lexists never raises for a path without permission.
    if os.path.lexists(text):
        return None
    prefix, colon, folder = text.partition(":")
    published = PUBLISHED.get(prefix.lower())
    if published is None:
        # A single letter is a drive; a name with separators is a missing path.
        if not colon or not re.fullmatch(r"[A-Za-z][\w-]+", prefix):
            return None
        message = f"there is no {text}, and {prefix!r} is not a published dataset"
        raise UsageError(message, did_you_mean(prefix, list(PUBLISHED), f"choose from {_known()}"))
    if not folder:
        hint = f"give {prefix}:DIR, where DIR is the root of torchvision.datasets"
        raise UsageError(f"{text} lacks the folder of {published.title}", hint)
    return published, Path(os.path.expanduser(folder))  # noqa: PTH111 - pathlib raises


def _known() -> str:
    return ", ".join(f"{prefix}:DIR" for prefix in PUBLISHED)


def open_published(
    published: PublishedDataset, path: Path, *, seed: int, val_fraction: float
) -> ImageData:
    """Read a published dataset, and hold out a share of its training images.

    Args:
        published: the dataset.
        path: torchvision's root, or the folder of the files below it.
        seed: of the draw of held-out images.
        val_fraction: share of each class to hold out, between 0 and 1.

    Raises:
        DataError: a file is missing, damaged or not the published one.
    """
    reader = _Reader(published, path)
    train, classes = reader.read("train")
    test, _ = reader.read("test")
    splits, notices, reason = {"train": train}, [], describe_no_validation("train")
    if val_fraction:
        held_out = _draw(train, len(classes), seed, val_fraction)
        splits = {"train": _select(train, "train", ~held_out)}
        splits["val"] = _select(train, "val", held_out)
        counts = train.counts(len(classes))
        single = [label for label, count in zip(classes, counts, strict=True) if count == 1]
        notices = check_single_images(single, len(classes), f"train of {reader.folder}")
        reason = describe_hold_out("train", seed, val_fraction)
    splits["test"] = test
    return ImageData(
        name=published.title,
        schema=Schema(classes),
        splits=splits,
        fingerprint=_fingerprint(splits, classes),
        notices=tuple(notices),
        reason=reason,
    )


def open_published_split(
    published: PublishedDataset, path: Path, classes: Sequence[str], split: str | None = None
) -> PublishedSplit:
    """Read the images of a published dataset to evaluate a model on.

    Args:
        published: the dataset.
        path: as for `open_published`.
        classes: of the model, in its order; classes of the data are matched by name.
        split: `train`, whole as published, or `test`; None for `test`.

    Raises:
        DataError: a file is missing, damaged or not the published one; there is no such split; or
            a class is unknown to the model.
    """
    name = choose_split(published.title, {"train": "train", "test": "test"}, split)
    reader = _Reader(published, path)
    images, names = reader.read(name)
    present = sorted(set(images.targets))
    check_known([names[label] for label in present], classes, reader.folder)
    index_of = positions(classes)
    position = {label: index_of[nfc(names[label])] for label in present}
    labels = tuple(position[label] for label in images.targets)
    return PublishedSplit(name, images.images, labels, images.names)


class _Reader:
    """Reads a published dataset through its torchvision class.

    Args:
        published: the dataset.
        path: torchvision's root, or the folder of the files below it.

    Raises:
        DataError: a file is missing, or not the published one.
    """

    def __init__(self, published: PublishedDataset, path: Path) -> None:
        from torchvision import datasets

        self.title = published.title
        self.dataset: Any = getattr(datasets, published.dataset)
        # Published md5 by file. That of MNIST is of the archives; the files inside are arrays
        # without code.
        self.digests: dict[str, str | None]
        self.image_files: dict[str, list[str]]
        if issubclass(self.dataset, datasets.CIFAR10):
            inner, meta = self.dataset.base_folder, self.dataset.meta
            listed = {"train": self.dataset.train_list, "test": self.dataset.test_list}
            self.image_files = {
                split: [name for name, _ in files] for split, files in listed.items()
            }
            # An empty digest matches no file, so that none is unpickled unverified.
            self.digests = {name: md5 or "" for files in listed.values() for name, md5 in files}
            self.digests[meta["filename"]] = meta["md5"] or ""
        else:
            inner = f"{published.dataset}/raw"
            names = [Path(name).stem for name, _ in self.dataset.resources]
            self.image_files = {"train": names[0:1], "test": names[2:3]}
            self.digests = dict.fromkeys(names)
        self.root = _find_root(path, inner)
        self.folder = self.root / inner
        call = f"torchvision.datasets.{published.dataset}({str(self.root)!r}, download=True)"
        self._hint = f"download it: {call}"
        self._verify(path, inner)

    def _verify(self, path: Path, inner: str) -> None:
        """Verify the files against the published digests."""
        try:
            if not self.folder.is_dir():
                if path.is_dir():
                    raise DataError(f"{path} has no {inner}/ of {self.title}", self._hint)
                problem = "is not a folder" if path.exists() else "does not exist"
                raise DataError(
                    f"{path} {problem}; expected the folder of {self.title}", self._hint
                )
            missing = [name for name in self.digests if not (self.folder / name).exists()]
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}") from error
        if missing:
            raise DataError(f"{self.folder} lacks {shorten(missing)} of {self.title}", self._hint)
        legacy = self.folder.with_name("processed") / "training.pt"
        if self.folder.name == "raw" and legacy.exists():
            message = f"torchvision reads {legacy}, a pickle, instead of the files in {self.folder}"
            raise DataError(message, f"delete the folder {legacy.parent}")
        for name, md5 in self.digests.items():
            _check_file(self.folder / name, md5, f"delete it, then {self._hint}")

    def read(self, split: str) -> tuple[PublishedSplit, tuple[str, ...]]:
        """Read `train` or `test` in full; return it with the class names.

        Raises:
            DataError: the files are damaged, or images and labels do not match.
        """
        source = f"{split} of {self.title} in {self.folder}"
        try:
            dataset = self.dataset(root=self.root, train=split == "train", download=False)
        except Exception as error:  # damaged bytes raise nearly any exception
            listed = shorten(self.image_files[split])
            message = f"torchvision cannot read {source} ({listed} and labels): {one_line(error)}"
            raise DataError(message, "download the files again") from error
        images = np.asarray(dataset.data)
        images = images[..., np.newaxis] if images.ndim == 3 else images
        labels = tuple(np.asarray(dataset.targets).tolist())
        classes = tuple(dataset.classes)
        if len(images) != len(labels) or 0 in images.shape:
            message = f"{source} has images of shape {list(images.shape)} and {len(labels)} labels"
            raise DataError(message, "download the files again")
        if max(labels) >= len(classes):
            message = f"{source} has the label {max(labels)}"
            raise DataError(message, f"labels are 0 to {len(classes) - 1}")
        # The files of CIFAR contain equally many images.
        files = self.image_files[split]
        count = len(labels) // len(files)
        names = tuple(f"{files[index // count]} #{index % count}" for index in range(len(labels)))
        return PublishedSplit(split, images, labels, names), classes


def _find_root(path: Path, inner: str) -> Path:
    """Return torchvision's root, given it or the folder of the files below it."""
    parts = Path(inner).parts
    if path.parts[-len(parts) :] == parts and not os.path.isdir(path / inner):  # noqa: PTH112
        return path.parents[len(parts) - 1]
    return path


def _check_file(path: Path, md5: str | None, hint: str) -> None:
    """Refuse a file that is not the published one.

    Args:
        path: of the file.
        md5: published digest; None if there is none.
        hint: how to replace the file.

    Raises:
        DataError: it is not a regular file, cannot be read, or has another digest.
    """
    try:
        # Opening a pipe blocks until there is a writer, and a device may never end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError(f"{path} is not a regular file", hint)
        if md5 is None:
            return
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    if digest.hexdigest() != md5:
        message = f"{path} is not the published file and may execute code when read"
        raise DataError(f"{message}: its md5 is {digest.hexdigest()}, not {md5}", hint)


def _draw(split: PublishedSplit, n_classes: int, seed: int, fraction: float) -> NDArray[np.bool_]:
    """Return a mask of held-out images: a share of every class, drawn by name."""
    labels = np.array(split.targets)
    mask = np.zeros(len(labels), dtype=bool)
    for label in range(n_classes):
        positions = np.flatnonzero(labels == label)
        drawn = draw_held_out([split.names[index] for index in positions], seed, fraction)
        mask[positions[sorted(drawn)]] = True
    return mask


def _select(split: PublishedSplit, name: str, mask: NDArray[np.bool_]) -> PublishedSplit:
    """Copy the images of a mask into a split."""
    rows = np.flatnonzero(mask).tolist()
    labels = tuple(split.targets[row] for row in rows)
    return PublishedSplit(name, split.images[rows], labels, tuple(split.names[row] for row in rows))


def _fingerprint(splits: Mapping[str, PublishedSplit], classes: Sequence[str]) -> str:
    """Hash splits, names, classes and pixels."""
    digest = hashlib.sha256()
    for name, split in splits.items():
        for image, label in zip(split.names, split.targets, strict=True):
            digest.update(f"{name}\0{image}\0{classes[label]}\0".encode())
        for first in range(0, len(split), 1024):
            digest.update(split.images[first : first + 1024].tobytes())
    return digest.hexdigest()
