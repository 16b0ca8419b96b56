"""Published sets of images by name, `cifar10:DIR`, read by `torchvision.datasets`.

CIFAR's files are pickles, which run whatever code they carry. Each is compared with the digest that
torchvision publishes before torchvision opens it, so that only the published files are unpickled.
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

from zoo.data.scan import shorten
from zoo.data.schema import Schema
from zoo.data.split import ImageData, Split, draw_held
from zoo.data.splitting import choose_split
from zoo.errors import DataError, UsageError, did_you_mean, one_line
from zoo.tasks.classification.data.splitting import check_drawn, check_known, why_drawn


@dataclass(frozen=True)
class PublishedSet:
    """A set of images that torchvision knows how to read.

    Args:
        title: its usual name.
        dataset: its class in `torchvision.datasets`.
    """

    title: str
    dataset: str


PUBLISHED: Mapping[str, PublishedSet] = {
    "cifar10": PublishedSet("CIFAR-10", "CIFAR10"),
    "cifar100": PublishedSet("CIFAR-100", "CIFAR100"),
    "mnist": PublishedSet("MNIST", "MNIST"),
    "fashion-mnist": PublishedSet("Fashion-MNIST", "FashionMNIST"),
}


@dataclass(frozen=True, eq=False)
class PublishedSplit(Split):
    """Images of a published set, in memory.

    Args:
        name: of the split.
        images: `[n, height, width, channels]`, uint8; one channel or three.
        targets: of each image, a position in the classes.
        names: of each image: its file and its position there.
    """

    name: str
    images: NDArray[np.uint8]
    targets: tuple[int, ...]
    names: tuple[str, ...]

    thread_safe: ClassVar[bool] = True

    def where(self, index: int) -> str:
        """Return the image's name."""
        return self.names[index]

    def picture(self, index: int) -> Image.Image:
        """Return an image as 8-bit RGB; grey is repeated in all channels."""
        pixels = self.images[index]
        if pixels.shape[2] == 1:
            pixels = pixels[:, :, 0]
        return Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB")

    def content(self, index: int) -> bytes:
        """Return the image's shape and its bytes."""
        pixels = self.images[index]
        shape, values = f"{pixels.shape}".encode(), pixels.tobytes()
        return bytes(shape + values)


def find_published(source: str | Path) -> tuple[PublishedSet, Path] | None:
    """Return the set that a source names, and its folder; None where it is a path.

    Raises:
        UsageError: it is neither a path that exists nor a set that is known.
    """
    written = str(source)
    # Never raises, where pathlib would for a path without permission.
    if os.path.lexists(written):
        return None
    prefix, colon, folder = written.partition(":")
    found = PUBLISHED.get(prefix.lower())
    if found is None:
        # A single letter is a drive, and a name of more parts a path that is missing.
        if not colon or not re.fullmatch(r"[A-Za-z][\w-]+", prefix):
            return None
        message = f"there is no {written}, and {prefix!r} is no published set that zoo reads"
        raise UsageError(message, did_you_mean(prefix, list(PUBLISHED), f"it reads {_known()}"))
    if not folder:
        hint = f"give {prefix}:DIR, where DIR is what torchvision.datasets calls root"
        raise UsageError(f"{written} does not say where {found.title} lies", hint)
    return found, Path(os.path.expanduser(folder))  # noqa: PTH111 - pathlib's raises


def _known() -> str:
    return ", ".join(f"{prefix}:DIR" for prefix in PUBLISHED)


def open_published(
    published: PublishedSet, path: Path, *, seed: int, val_fraction: float
) -> ImageData:
    """Read a published set, and hold out a part of its training images.

    Args:
        published: which one.
        path: torchvision's root, or the folder below it that holds the files.
        seed: decides which images are held out.
        val_fraction: the share of each class that is held out, between 0 and 1.

    Raises:
        DataError: a file is missing, damaged or not the published one.
    """
    reader = _Reader(published, path)
    train, classes = reader.read("train")
    test, _ = reader.read("test")
    held = _draw(train, len(classes), seed, val_fraction)
    splits = {"train": _select(train, "train", ~held), "val": _select(train, "val", held)}
    counts = train.counts(len(classes))
    single = [label for label, count in zip(classes, counts, strict=True) if count == 1]
    notices = check_drawn(single, len(classes), f"train of {reader.folder}")
    splits["test"] = test
    return ImageData(
        name=published.title,
        schema=Schema(classes),
        splits=splits,
        fingerprint=_fingerprint(splits, classes),
        notices=tuple(notices),
        reason=why_drawn("train", seed, val_fraction),
    )


def open_published_split(
    published: PublishedSet, path: Path, classes: Sequence[str], split: str | None = None
) -> PublishedSplit:
    """Read the images of a published set to evaluate a model on.

    Args:
        published: which one.
        path: as for `open_published`.
        classes: the model's, in its order; labels point into them by name.
        split: `train`, whole as published, or `test`; None for `test`.

    Raises:
        DataError: a file is missing, damaged or not the published one; no such split; or classes
            that the model does not know.
    """
    name = choose_split(published.title, {"train": "train", "test": "test"}, split)
    reader = _Reader(published, path)
    images, own = reader.read(name)
    present = sorted(set(images.targets))
    check_known([own[label] for label in present], classes, reader.folder)
    position = {label: classes.index(own[label]) for label in present}
    labels = tuple(position[label] for label in images.targets)
    return PublishedSplit(name, images.images, labels, images.names)


class _Reader:
    """Reads one published set through its torchvision class.

    Args:
        published: which one.
        path: torchvision's root, or the folder below it that holds the files.

    Raises:
        DataError: a file is missing, or not the published one.
    """

    def __init__(self, published: PublishedSet, path: Path) -> None:
        from torchvision import datasets

        self.title = published.title
        self.dataset: Any = getattr(datasets, published.dataset)
        # By file, the published md5. MNIST's files are verified while they are packed alone; they
        # are arrays without code.
        self.digests: dict[str, str | None]
        self.image_files: dict[str, list[str]]
        if issubclass(self.dataset, datasets.CIFAR10):
            inner, meta = self.dataset.base_folder, self.dataset.meta
            listed = {"train": self.dataset.train_list, "test": self.dataset.test_list}
            self.image_files = {
                split: [name for name, _ in files] for split, files in listed.items()
            }
            # An empty digest matches no file: none is unpickled unverified.
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
        self._fetch = f"{call} puts it there"
        self._verify(path, inner)

    def _verify(self, path: Path, inner: str) -> None:
        """Compare the files with the published digests."""
        try:
            if not self.folder.is_dir():
                if path.is_dir():
                    raise DataError(f"{path} holds no {inner}/ with {self.title}", self._fetch)
                what = "is not a folder" if path.exists() else "does not exist"
                raise DataError(f"{path} {what}; {self.title} is looked for there", self._fetch)
            missing = [name for name in self.digests if not (self.folder / name).exists()]
        except OSError as error:
            raise DataError(f"cannot read {path}: {error.strerror or error}") from error
        if missing:
            raise DataError(f"{self.folder} lacks {shorten(missing)} of {self.title}", self._fetch)
        legacy = self.folder.with_name("processed") / "training.pt"
        if self.folder.name == "raw" and legacy.exists():
            message = f"torchvision reads {legacy}, a pickle, instead of the files in {self.folder}"
            raise DataError(message, f"delete the folder {legacy.parent}")
        for name, md5 in self.digests.items():
            _check_file(self.folder / name, md5, f"delete it; {self._fetch}")

    def read(self, split: str) -> tuple[PublishedSplit, tuple[str, ...]]:
        """Read `train` or `test`, whole; return it with the names of the classes.

        Raises:
            DataError: the files are damaged, or do not hold images with labels.
        """
        where = f"{split} of {self.title} in {self.folder}"
        try:
            dataset = self.dataset(root=self.root, train=split == "train", download=False)
        except Exception as error:  # of damaged bytes it raises nearly any kind
            files = shorten(self.image_files[split])
            message = f"torchvision cannot read {where} ({files} and labels): {one_line(error)}"
            raise DataError(message, "fetch the files again") from error
        images = np.asarray(dataset.data)
        images = images[..., np.newaxis] if images.ndim == 3 else images
        labels = tuple(np.asarray(dataset.targets).tolist())
        classes = tuple(dataset.classes)
        if len(images) != len(labels) or 0 in images.shape:
            message = f"{where} has images of shape {list(images.shape)} and {len(labels)} labels"
            raise DataError(message, "fetch the files again")
        if max(labels) >= len(classes):
            message = f"{where} has the label {max(labels)}"
            raise DataError(message, f"labels are 0 to {len(classes) - 1}")
        # Each of CIFAR's files holds as many images as the others.
        sources = self.image_files[split]
        each = len(labels) // len(sources)
        names = tuple(f"{sources[index // each]} #{index % each}" for index in range(len(labels)))
        return PublishedSplit(split, images, labels, names), classes


def _find_root(path: Path, inner: str) -> Path:
    """Return torchvision's root, of which `path` may be the folder that holds the files."""
    parts = Path(inner).parts
    if path.parts[-len(parts) :] == parts and not os.path.isdir(path / inner):  # noqa: PTH112
        return path.parents[len(parts) - 1]
    return path


def _check_file(path: Path, md5: str | None, hint: str) -> None:
    """Refuse a file that is not the published one.

    Args:
        path: of the file.
        md5: the published digest; None where there is none.
        hint: how to replace the file.

    Raises:
        DataError: it is no regular file, cannot be read, or has another digest.
    """
    try:
        # Opening a pipe would wait for a writer, and a device may never end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError(f"{path} is not a regular file", hint)
        if md5 is None:
            return
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False))
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    if digest.hexdigest() != md5:
        message = f"{path} is not the published file, and could run code when it is opened"
        raise DataError(f"{message}: its md5 is {digest.hexdigest()}, not {md5}", hint)


def _draw(split: PublishedSplit, n_classes: int, seed: int, fraction: float) -> NDArray[np.bool_]:
    """Mark the images that are held out: a share of every class, drawn by name as files are."""
    labels = np.array(split.targets)
    held = np.zeros(len(labels), dtype=bool)
    for label in range(n_classes):
        positions = np.flatnonzero(labels == label)
        drawn = draw_held([split.names[index] for index in positions], seed, fraction)
        held[positions[sorted(drawn)]] = True
    return held


def _select(split: PublishedSplit, name: str, mask: NDArray[np.bool_]) -> PublishedSplit:
    """Copy the marked images into a split of their own."""
    rows = np.flatnonzero(mask).tolist()
    labels = tuple(split.targets[row] for row in rows)
    return PublishedSplit(name, split.images[rows], labels, tuple(split.names[row] for row in rows))


def _fingerprint(splits: Mapping[str, PublishedSplit], classes: Sequence[str]) -> str:
    """Digest splits, names, classes and pixels."""
    digest = hashlib.sha256()
    for name, split in splits.items():
        for image, label in zip(split.names, split.targets, strict=True):
            digest.update(f"{name}\0{image}\0{classes[label]}\0".encode())
        for first in range(0, len(split), 1024):
            digest.update(split.images[first : first + 1024].tobytes())
    return digest.hexdigest()
