"""Published datasets: equal to torchvision's, verified before reading."""

import hashlib
import os
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from tests.published_sets import (
    NAMES,
    batch_names,
    embedded_pixels,
    publish,
    write_cifar,
    write_mnist,
)
from zoo.data.dataset import SampleTransform
from zoo.data.loader import can_use_threads, load_batches
from zoo.errors import DataError, UsageError
from zoo.spec import Preprocess
from zoo.tasks.classification.data.published import PublishedSplit
from zoo.tasks.classification.data.sources import open_data, open_split

TRAIN = batch_names()[:-1]
TEN = list(range(10))


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    """Seven images of each of ten classes, `[7, 10, 32, 32, 3]`; the last two to test on."""
    return embedded_pixels(7)


def batches(pixels: np.ndarray) -> list[tuple[np.ndarray, list[int]]]:
    return [*((part, TEN) for part in pixels[:5]), (pixels[5:].reshape(20, 32, 32, 3), TEN * 2)]


@pytest.fixture
def cifar(tmp_path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = write_cifar(tmp_path / "root", batches(pixels))
    publish(monkeypatch, root)
    return root


@pytest.fixture
def mnist(tmp_path: Path, pixels: np.ndarray) -> Path:
    return write_mnist(tmp_path / "root", pixels)


def refusal(source: str) -> DataError:
    with pytest.raises(DataError) as caught:
        open_data(source)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    return caught.value


def check_images(split: PublishedSplit, published: Any) -> None:
    """Check that a split is pixel by pixel what torchvision reads at the positions it names."""
    for index, name in enumerate(split.names):
        file, _, position = name.partition(" #")
        before = TRAIN.index(file) * 10 if file in TRAIN else 0
        image, label = published[before + int(position)]
        assert np.array_equal(split.image(index), image.convert("RGB"))
        assert split.targets[index] == label


def test_cifar10_equals_torchvision(cifar: Path) -> None:
    data = open_data(f"cifar10:{cifar}")
    train, test = datasets.CIFAR10(cifar, train=True), datasets.CIFAR10(cifar, train=False)
    assert (data.name, data.classes) == ("CIFAR-10", tuple(train.classes))
    sizes = {name: split.counts(10) for name, split in data.splits.items()}
    assert sizes == {"train": (4,) * 10, "val": (1,) * 10, "test": (2,) * 10}
    for name, published in (("train", train), ("val", train), ("test", test)):
        check_images(data.splits[name], published)
    names = [*data.splits["train"].names, *data.splits["val"].names]
    assert len(set(names)) == 50
    assert data.splits["test"].where(3) == "test_batch #3"
    assert data.reason == "20 % of each class of train held out by seed 0"
    assert data.notices == ()
    assert data.deterministic


def test_mnist_equals_torchvision(mnist: Path) -> None:
    data = open_data(f"mnist:{mnist}")
    train, test = datasets.MNIST(mnist, train=True), datasets.MNIST(mnist, train=False)
    assert (data.name, data.classes) == ("MNIST", tuple(train.classes))
    for name, published in (("train", train), ("val", train), ("test", test)):
        check_images(data.splits[name], published)
    assert data.splits["test"].image(0).mode == "RGB"
    assert data.splits["test"].where(3) == "t10k-images-idx3-ubyte #3"


def test_cifar100_and_fashion_mnist_are_read(
    tmp_path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = [
        (pixels[:5].reshape(50, 32, 32, 3), TEN * 5),
        (pixels[5:].reshape(20, 32, 32, 3), TEN * 2),
    ]
    write_cifar(tmp_path, parts, dataset=datasets.CIFAR100)
    publish(monkeypatch, tmp_path, datasets.CIFAR100)
    data = open_data(f"cifar100:{tmp_path}")
    assert (data.name, data.classes, len(data.splits["test"])) == ("CIFAR-100", tuple(NAMES), 20)
    assert data.splits["test"].where(0) == "test #0"
    data = open_data(f"fashion-mnist:{write_mnist(tmp_path, pixels, 'FashionMNIST')}")
    assert (data.name, data.classes) == ("Fashion-MNIST", tuple(datasets.FashionMNIST.classes))


def test_root_or_inner_folder_is_accepted(
    cifar: Path, mnist: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fingerprint = open_data(f"cifar10:{cifar}").fingerprint
    assert open_data(f"cifar10:{cifar}/cifar-10-batches-py").fingerprint == fingerprint
    monkeypatch.setenv("HOME", str(cifar.parent))
    assert open_data(f"CIFAR10:~/{cifar.name}").fingerprint == fingerprint
    fingerprint = open_data(f"mnist:{mnist}").fingerprint
    assert open_data(f"mnist:{mnist}/MNIST/raw").fingerprint == fingerprint


def test_fingerprint_depends_on_seed_and_pixels(
    mnist: Path, pixels: np.ndarray, tmp_path: Path
) -> None:
    first, again = open_data(f"mnist:{mnist}"), open_data(f"mnist:{mnist}")
    assert first.splits["val"].names == again.splits["val"].names
    other = open_data(f"mnist:{mnist}", seed=1)
    assert other.splits["val"].names != first.splits["val"].names
    changed = pixels.copy()
    changed[6, 9, 29, 29, 1] ^= 1
    fingerprint = open_data(f"mnist:{write_mnist(tmp_path / 'x', changed)}").fingerprint
    assert len({fingerprint, first.fingerprint, other.fingerprint}) == 3
    whole = open_data(f"mnist:{mnist}", val_fraction=0.0)
    assert (list(whole.splits), whole.own_val) == (["train", "test"], False)
    assert len(whole.splits["train"]) == len(first.splits["train"]) + len(first.splits["val"])
    assert whole.reason == "nothing of train is held out: all images train, without validation"
    half = open_data(f"mnist:{mnist}", val_fraction=0.5)
    assert half.splits["val"].counts(10) == (2,) * 10


def test_content_is_shape_and_pixels(cifar: Path, mnist: Path, pixels: np.ndarray) -> None:
    split = open_data(f"cifar10:{cifar}").splits["test"]
    assert split.content(4) == b"(32, 32, 3)" + pixels[5, 4].tobytes()
    split = open_data(f"mnist:{mnist}").splits["test"]
    assert split.content(4) == b"(28, 28, 1)" + pixels[5, 4, 2:30, 2:30, 1].tobytes()


def test_threads_and_workers_load_equal_batches(cifar: Path) -> None:
    split = open_data(f"cifar10:{cifar}").splits["train"]
    small = Preprocess(32, resize=32)
    assert can_use_threads(split, None)
    plain = list(load_batches(split, SampleTransform(small), range(40), 16))
    for options in ({"workers": 1}, {"threads": 2}):
        others = list(load_batches(split, SampleTransform(small), range(40), 16, **options))
        assert all(torch.equal(a.inputs, b.inputs) for a, b in zip(plain, others, strict=True))
    expected = torch.from_numpy(np.array(split.image(3))).permute(2, 0, 1)
    assert torch.equal(plain[0].inputs[3], expected)
    arrived = pickle.loads(pickle.dumps(split))
    assert (arrived.names, arrived.content(7)) == (split.names, split.content(7))


def test_open_split_defaults_to_test(cifar: Path) -> None:
    split = open_split(f"cifar10:{cifar}", (*NAMES[5:], *NAMES[:5]))
    assert (split.name, split.targets[:10]) == ("test", (5, 6, 7, 8, 9, 0, 1, 2, 3, 4))
    assert len(open_split(f"cifar10:{cifar}", NAMES, "Train")) == 50
    with pytest.raises(DataError, match="no split 'val'; it has train and test"):
        open_split(f"cifar10:{cifar}", NAMES, "val")
    with pytest.raises(DataError, match="unknown to the model: flag"):
        open_split(f"cifar10:{cifar}", [name for name in NAMES if name != "flag"])


def test_missing_files_are_named_with_download_hint(cifar: Path, mnist: Path) -> None:
    for source in ("cifar10:/no/where", f"cifar100:{cifar}", f"fashion-mnist:{mnist}"):
        error = refusal(source)
        assert "does not exist" in error.message or "has no " in error.message
        assert "download=True" in str(error.hint)
    assert "is not a folder" in refusal(f"mnist:{__file__}").message
    (cifar / "cifar-10-batches-py/data_batch_3").unlink()
    (cifar / "cifar-10-batches-py/batches.meta").unlink()
    assert "lacks data_batch_3, batches.meta of CIFAR-10" in refusal(f"cifar10:{cifar}").message
    (mnist / "MNIST/raw/t10k-labels-idx1-ubyte").unlink()
    error = refusal(f"mnist:{mnist}")
    assert "lacks t10k-labels-idx1-ubyte" in error.message
    assert f"torchvision.datasets.MNIST('{mnist}', download=True)" in str(error.hint)


@pytest.mark.parametrize("name", ["data_batch_2", "test_batch", "batches.meta"])
def test_altered_pickle_is_never_executed(cifar: Path, tmp_path: Path, name: str) -> None:
    file, trace = cifar / "cifar-10-batches-py" / name, tmp_path / "trace"
    file.write_bytes(b"cos\nmkdir\n(V" + str(trace).encode() + b"\ntR.")
    error = refusal(f"cifar10:{cifar}")
    assert error.message.startswith(f"{file} is not the published file")
    assert hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest() in error.message
    assert (
        f"delete it, then download it: torchvision.datasets.CIFAR10('{cifar}', download=True)"
        in str(error.hint)
    )
    with pytest.raises(DataError, match="is not the published file"):
        open_split(f"cifar10:{cifar}", NAMES)
    assert not trace.exists()
    pickle.loads(file.read_bytes())
    assert trace.exists()


@pytest.mark.parametrize("prefix", ["cifar10", "cifar100"])
def test_digests_are_those_of_torchvision(tmp_path: Path, pixels: np.ndarray, prefix: str) -> None:
    dataset = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[prefix]
    count = len(batch_names(dataset))
    write_cifar(tmp_path, [(part, TEN) for part in pixels[:count]], dataset=dataset)
    first, md5 = dataset.train_list[0]
    error = refusal(f"{prefix}:{tmp_path}")
    assert f"{tmp_path / dataset.base_folder / first} is not the published file" in error.message
    assert error.message.endswith(f"not {md5}")


def test_file_without_digest_is_rejected(cifar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", None]])
    assert "test_batch is not the published file" in refusal(f"cifar10:{cifar}").message


def test_legacy_mnist_pickle_is_rejected(mnist: Path) -> None:
    folder = mnist / "MNIST/processed"
    folder.mkdir()
    for name in ("training.pt", "test.pt"):
        torch.save(
            (torch.zeros(20, 28, 28, dtype=torch.uint8), torch.arange(20) % 10), folder / name
        )
    assert len(datasets.MNIST(mnist)) == 20
    error = refusal(f"mnist:{mnist}")
    assert f"{folder / 'training.pt'}, a pickle" in error.message
    assert error.hint == f"delete the folder {folder}"


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_pipe_or_folder_as_file_is_rejected(cifar: Path, mnist: Path, kind: str) -> None:
    for folder, name, source in (
        ("cifar-10-batches-py", "data_batch_4", "cifar10"),
        ("MNIST/raw", "train-images-idx3-ubyte", "mnist"),
    ):
        file = cifar / folder / name
        file.unlink()
        os.mkfifo(file) if kind == "pipe" else file.mkdir()
        assert f"{file} is not a regular file" in refusal(f"{source}:{cifar}").message


def idx(magic: int, *sides: int, content: bytes = b"") -> bytes:
    return struct.pack(f">{1 + len(sides)}I", magic, *sides) + content


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cannot read train of MNIST"),
        (idx(2051, 1)[:7], "cannot read train of MNIST"),
        (b"\x80\x02}q\x00." + bytes(100), "cannot read train of MNIST"),
        (idx(2049, 1, content=bytes(1)), "should have 3 dimension"),
        (idx(2051, 2, 28, 28, content=bytes(784)), "'[2, 28, 28]' is invalid"),
        (idx(2051, 0xFFFFFFFF, 28, 28, content=bytes(784)), "cannot read train of MNIST"),
        (idx(2051, 3, 28, 28, content=bytes(3 * 784)), "shape [3, 28, 28, 1] and 50 labels"),
        (idx(2051, 50, 28, 0, content=b"x"), "cannot read train of MNIST"),
    ],
)
def test_inconsistent_idx_file_is_rejected(mnist: Path, data: bytes, message: str) -> None:
    (mnist / "MNIST/raw/train-images-idx3-ubyte").write_bytes(data)
    error = refusal(f"mnist:{mnist}")
    assert f"in {mnist}/MNIST/raw" in error.message
    assert message in error.message


def test_label_out_of_range_is_rejected(mnist: Path) -> None:
    labels = mnist / "MNIST/raw/train-labels-idx1-ubyte"
    labels.write_bytes(labels.read_bytes()[:-1] + b"\x0a")
    assert "has the label 10" in refusal(f"mnist:{mnist}").message


def test_class_with_single_image_yields_notice(tmp_path: Path, pixels: np.ndarray) -> None:
    root = write_mnist(tmp_path, pixels)
    folder = root / "MNIST/raw"
    (folder / "train-labels-idx1-ubyte").write_bytes(
        idx(2049, 50, content=bytes([3, *([1, 2] * 24), 2]))
    )
    (notice,) = open_data(f"mnist:{root}").notices
    assert notice == "1 class has a single image, used for training only: 3 - three"


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("cifar:/data", r"'cifar' is not a published dataset; did you mean cifar10"),
        ("fashion_mnist:/data", r"did you mean fashion-mnist"),
        ("imagenet:/data", r"choose from cifar10:DIR, cifar100:DIR, mnist:DIR, fashion-mnist:DIR"),
        ("mnist:", r"mnist: lacks the folder of MNIST; give mnist:DIR"),
        ("cifar10", r"cifar10 lacks the folder of CIFAR-10; give cifar10:DIR"),
    ],
)
def test_unknown_dataset_name_is_usage_error(source: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_data(source)
    with pytest.raises(UsageError, match=message):
        open_split(source, NAMES)


def test_existing_path_precedes_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for source in ("mnist:photos", "x:y", "cifar10"):
        for label in ("a", "b"):
            (tmp_path / source / label).mkdir(parents=True)
            for number in range(2):
                Image.new("L", (2, 2)).save(tmp_path / source / label / f"{number}.png")
        assert open_data(source).classes == ("a", "b")
        assert open_data(Path(source)).classes == ("a", "b")
    # As a drive would be, and as a missing file of a folder.
    for source in (r"C:\photos", "D:/photos", "./a:b", "/no/photos:2024"):
        assert "does not exist" in refusal(source).message
