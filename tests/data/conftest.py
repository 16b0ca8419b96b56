"""Published sets as torchvision lays them out, a few pictures of each class."""

import gzip
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from zoo.data.decode import decode
from zoo.data.sources import EMBEDDED

NAMES = sorted(folder.name for folder in (EMBEDDED / "train").iterdir())
TRAIN = [f"data_batch_{number}" for number in range(1, 6)]


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    """Seven pictures of each of ten classes, `[7, 10, 32, 32, 3]`; the last two to test on."""
    found = [sorted((EMBEDDED / "train" / name).iterdir())[:7] for name in NAMES]
    rows = [[np.asarray(decode(path).resize((32, 32))) for path in paths] for paths in found]
    return np.array(rows).swapaxes(0, 1)


def planes(images: np.ndarray) -> np.ndarray:
    """Pictures as CIFAR has them: `[n, 3072]`, red, then green, then blue."""
    return np.ascontiguousarray(images.transpose(0, 3, 1, 2).reshape(len(images), -1))


def python2(data: np.ndarray, labels: list[int]) -> bytes:
    """The pickle that Python 2 writes: texts are strings of bytes, as in the published files."""
    texts = iter(range(10, 250))

    def string(value: str) -> bytes:
        return b"U" + bytes([len(value)]) + value.encode() + b"q" + bytes([next(texts)])

    short = struct.pack("<H", len(data))
    return b"".join([
        b"\x80\x02}q\x01(",
        string("batch_label"), string("training batch 1 of 5"),
        string("labels"), b"]q\x02(", b"".join(b"K" + bytes([label]) for label in labels), b"e",
        string("data"), b"cnumpy.core.multiarray\n_reconstruct\nq\x03cnumpy\nndarray\nq\x04",
        b"K\x00\x85q\x05", string("b"), b"\x87q\x06Rq\x07(K\x01M", short, b"M\x00\x0c\x86q\x08",
        b"cnumpy\ndtype\nq\x09", string("u1"), b"K\x00K\x01\x87Rq\xfa(K\x03", string("|"),
        b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T", struct.pack("<i", data.nbytes),
        data.tobytes(), b"tb",
        string("filenames"), b"](", b"".join(string(f"{i}.png") for i in range(len(data))), b"eu.",
    ])  # fmt: skip


def cifar_below(root: Path, pixels: np.ndarray) -> Path:
    """Write what torchvision unpacks: five batches, one of them as Python 2 writes it."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    batches = [*TRAIN, "test_batch"]
    for number, name in enumerate(batches):
        images = pixels[5:].reshape(20, 32, 32, 3) if number == 5 else pixels[number]
        labels = list(range(10)) * (2 if number == 5 else 1)
        content = {"data": planes(images), "labels": labels, "filenames": ["x"] * len(labels)}
        data = (
            python2(planes(images), labels)
            if number == 2
            else pickle.dumps(content, number % 4 + 2)
        )
        (folder / name).write_bytes(data)
    meta = {"label_names": NAMES, "num_vis": 3072}
    (folder / "batches.meta").write_bytes(pickle.dumps(meta, 2))
    return root


def mnist_below(root: Path, pixels: np.ndarray, packed: bool = False, name: str = "MNIST") -> Path:
    """Write what torchvision unpacks, or what it fetches."""
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    grey = pixels[..., 2:30, 2:30, 1]
    for prefix, part in (("train", grey[:5]), ("t10k", grey[5:])):
        images = part.reshape(-1, 28, 28)
        head = struct.pack(">4I", 2051, len(images), 28, 28)
        labels = struct.pack(">2I", 2049, len(images)) + bytes(list(range(10)) * len(part))
        for kind, data in (("images-idx3", head + images.tobytes()), ("labels-idx1", labels)):
            file = folder / f"{prefix}-{kind}-ubyte{'.gz' if packed else ''}"
            file.write_bytes(gzip.compress(data) if packed else data)
    return root


@pytest.fixture
def cifar(tmp_path: Path, pixels: np.ndarray) -> Path:
    return cifar_below(tmp_path / "root", pixels)


@pytest.fixture
def mnist(tmp_path: Path, pixels: np.ndarray) -> Path:
    return mnist_below(tmp_path / "root", pixels)


@pytest.fixture
def write_cifar() -> Callable[..., Path]:
    return cifar_below


@pytest.fixture
def write_mnist() -> Callable[..., Path]:
    return mnist_below


@pytest.fixture
def python2_batch() -> Callable[..., bytes]:
    return python2
