"""Small published sets as torchvision lays them out, and the digests that make them the real ones.

The published files cannot be downloaded in a test. `publish` puts the digests of small files in
the place of torchvision's, which are checked as the real ones are.
"""

import hashlib
import pickle
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision import datasets

from zoo.data.decode import decode
from zoo.tasks.classification.data.sources import EMBEDDED

NAMES = sorted(folder.name for folder in (EMBEDDED / "train").iterdir())


def embedded_pixels(each: int, side: int = 32) -> np.ndarray:
    """Return some embedded images of each of ten classes, `[each, 10, side, side, 3]`."""
    files = [sorted((EMBEDDED / "train" / name).iterdir())[:each] for name in NAMES]
    rows = [[np.asarray(decode(path).resize((side, side))) for path in paths] for paths in files]
    return np.array(rows).swapaxes(0, 1)


def batch_names(dataset: Any = datasets.CIFAR10) -> list[str]:
    """Return the files of images of CIFAR-10 or CIFAR-100: those of train, then test."""
    return [name for name, _ in (*dataset.train_list, *dataset.test_list)]


def write_cifar(
    root: Path,
    batches: Sequence[tuple[np.ndarray, Sequence[int]]],
    names: Sequence[str] = NAMES,
    dataset: Any = datasets.CIFAR10,
) -> Path:
    """Write a small CIFAR-10 or CIFAR-100.

    Args:
        root: the folder that torchvision is given.
        batches: images `[n, 32, 32, 3]` and labels of each file: those of train, then test.
        names: of the classes.
        dataset: torchvision's class.
    """
    folder = root / dataset.base_folder
    folder.mkdir(parents=True)
    key = "labels" if dataset is datasets.CIFAR10 else "fine_labels"
    for file, (images, labels) in zip(batch_names(dataset), batches, strict=True):
        data = np.ascontiguousarray(images.transpose(0, 3, 1, 2).reshape(len(images), -1))
        content = {"data": data, key: list(labels), "filenames": [file] * len(labels)}
        (folder / file).write_bytes(pickle.dumps(content, protocol=2))
    meta = {dataset.meta["key"]: list(names), "num_vis": 3072}
    (folder / dataset.meta["filename"]).write_bytes(pickle.dumps(meta, protocol=2))
    return root


def write_mnist(root: Path, pixels: np.ndarray, name: str = "MNIST") -> Path:
    """Write a small MNIST: of `[n, 10, 32, 32, 3]` the first five of each class to train on."""
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    grey = pixels[..., 2:30, 2:30, 1]
    for prefix, part in (("train", grey[:5]), ("t10k", grey[5:])):
        images = part.reshape(-1, 28, 28)
        head = struct.pack(">4I", 2051, len(images), 28, 28)
        labels = struct.pack(">2I", 2049, len(images)) + bytes(list(range(10)) * len(part))
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(head + images.tobytes())
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(labels)
    return root


def digests(root: Path, dataset: Any = datasets.CIFAR10) -> Mapping[str, Any]:
    """Return what torchvision's class states of its files, for the files below a root."""

    def pair(name: str) -> list[str]:
        content = (root / dataset.base_folder / name).read_bytes()
        return [name, hashlib.md5(content, usedforsecurity=False).hexdigest()]

    return {
        "train_list": [pair(name) for name, _ in dataset.train_list],
        "test_list": [pair(name) for name, _ in dataset.test_list],
        "meta": {**dataset.meta, "md5": pair(dataset.meta["filename"])[1]},
    }


def publish(monkeypatch: pytest.MonkeyPatch, root: Path, dataset: Any = datasets.CIFAR10) -> None:
    """Make the files below a root those that torchvision takes for the published ones."""
    for name, value in digests(root, dataset).items():
        monkeypatch.setattr(dataset, name, value)
