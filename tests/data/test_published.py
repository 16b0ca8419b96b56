import gzip
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from zoo.data.loader import load_batches
from zoo.data.sources import EMBEDDED, open_data, open_split
from zoo.data.split import ArraySplit
from zoo.errors import DataError, UsageError
from zoo.spec import Preprocess

NAMES = sorted(folder.name for folder in (EMBEDDED / "train").iterdir())
TRAIN = [f"data_batch_{number}" for number in range(1, 6)]


class Cifar10(datasets.CIFAR10):
    """Torchvision's own reader, for other pictures than the published ones."""

    train_list = [[name, None] for name in TRAIN]  # noqa: RUF012
    test_list = [["test_batch", None]]  # noqa: RUF012
    meta = {**datasets.CIFAR10.meta, "md5": None}  # noqa: RUF012


def refusal(source: str) -> DataError:
    with pytest.raises(DataError) as caught:
        open_data(source)
    assert caught.value.exit_code == 3
    assert "\n" not in str(caught.value)
    return caught.value


def as_torchvision_has_them(split: ArraySplit, published: Any) -> bool:
    """Whether a split is pixel by pixel what torchvision reads at the places its names say."""
    for index, name in enumerate(split.names):
        file, _, place = name.partition(" #")
        before = TRAIN.index(file) * 10 if file in TRAIN else 0
        image, label = published[before + int(place)]
        same = np.array_equal(split.picture(index), image.convert("RGB"))
        if not same or split.labels[index] != label:
            return False
    return True


def test_cifar_is_what_torchvision_reads(cifar: Path) -> None:
    data = open_data(f"cifar10:{cifar}")
    train, test = Cifar10(cifar, train=True), Cifar10(cifar, train=False)
    assert (data.name, data.classes) == ("CIFAR-10", tuple(train.classes))
    sizes = {name: split.counts(10) for name, split in data.splits.items()}
    assert sizes == {"train": (4,) * 10, "val": (1,) * 10, "test": (2,) * 10}
    for name, published in (("train", train), ("val", train), ("test", test)):
        assert as_torchvision_has_them(data.splits[name], published)
    names = [*data.splits["train"].names, *data.splits["val"].names]
    assert len(set(names)) == 50
    assert "data_batch_1 #0" in names
    assert data.splits["test"].where(3) == "test_batch #3"
    assert data.reason == "20 % of each class of train held out by seed 0"
    assert data.notices == (
        "train has 50 pictures, where 50,000 were published",
        "test has 20 pictures, where 10,000 were published",
    )


def test_mnist_is_what_torchvision_reads(mnist: Path) -> None:
    data = open_data(f"mnist:{mnist}")
    train, test = datasets.MNIST(mnist, train=True), datasets.MNIST(mnist, train=False)
    assert data.classes == tuple(train.classes)
    for name, published in (("train", train), ("val", train), ("test", test)):
        assert as_torchvision_has_them(data.splits[name], published)
    assert data.splits["test"].picture(0).mode == "RGB"


def test_cifar100_and_fashion_mnist_too(
    tmp_path: Path, pixels: np.ndarray, write_mnist: Callable[..., Path]
) -> None:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name, part in (("train", pixels[:5]), ("test", pixels[5:])):
        labels = list(range(10)) * len(part)
        data = part.reshape(-1, 3072)
        content = {"data": data, "fine_labels": labels, "coarse_labels": [0] * len(labels)}
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": NAMES, "coarse": ["x"]}))
    data = open_data(f"cifar100:{tmp_path}")
    assert (data.name, data.classes, len(data.splits["test"])) == ("CIFAR-100", tuple(NAMES), 20)
    data = open_data(f"fashion-mnist:{write_mnist(tmp_path, pixels, name='FashionMNIST')}")
    assert (data.name, data.classes) == ("Fashion-MNIST", tuple(datasets.FashionMNIST.classes))


def test_the_folder_itself_and_packing_change_nothing(
    tmp_path: Path,
    cifar: Path,
    mnist: Path,
    pixels: np.ndarray,
    write_mnist: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fingerprint = open_data(f"cifar10:{cifar}").fingerprint
    assert open_data(f"cifar10:{cifar}/cifar-10-batches-py").fingerprint == fingerprint
    monkeypatch.setenv("HOME", str(cifar.parent))
    assert open_data(f"CIFAR10:~/{cifar.name}").fingerprint == fingerprint
    fingerprint = open_data(f"mnist:{mnist}").fingerprint
    assert open_data(f"mnist:{mnist}/MNIST/raw").fingerprint == fingerprint
    packed = write_mnist(tmp_path / "packed", pixels, packed=True)
    assert open_data(f"mnist:{packed}").fingerprint == fingerprint


def test_seed_and_pixels_decide(
    cifar: Path, pixels: np.ndarray, tmp_path: Path, write_cifar: Callable[..., Path]
) -> None:
    first, again = open_data(f"cifar10:{cifar}"), open_data(f"cifar10:{cifar}")
    assert first.splits["val"].names == again.splits["val"].names
    other = open_data(f"cifar10:{cifar}", seed=1)
    assert other.splits["val"].names != first.splits["val"].names
    changed = pixels.copy()
    changed[6, 9, 31, 31, 2] ^= 1
    assert open_data(f"cifar10:{write_cifar(tmp_path / 'x', changed)}").fingerprint not in (
        first.fingerprint,
        other.fingerprint,
    )
    half = open_data(f"cifar10:{cifar}", val_fraction=0.5)
    assert half.splits["val"].counts(10) == (2,) * 10


def test_splits_share_their_pictures_and_travel_without_those_of_others(cifar: Path) -> None:
    splits = open_data(f"cifar10:{cifar}").splits
    train, val = splits["train"], splits["val"]
    assert np.shares_memory(train.images, val.images)
    sent = pickle.dumps(val)
    assert 10 * 3072 < len(sent) < 11 * 3072
    arrived = pickle.loads(sent)
    assert (arrived.name, arrived.names, arrived.labels) == ("val", val.names, val.labels)
    assert all(np.array_equal(arrived.picture(i), val.picture(i)) for i in range(10))


def test_loading_with_workers_is_the_same(cifar: Path) -> None:
    split = open_data(f"cifar10:{cifar}").splits["train"]
    small = Preprocess(32, resize=32)
    plain = list(load_batches(split, small, range(40), 16))
    others = list(load_batches(split, small, range(40), 16, workers=1))
    assert all(torch.equal(a.images, b.images) for a, b in zip(plain, others, strict=True))
    expected = torch.from_numpy(np.array(split.picture(3))).permute(2, 0, 1)
    assert torch.equal(plain[0].images[3], expected)


def test_evaluation_takes_test(cifar: Path) -> None:
    split = open_split(f"cifar10:{cifar}", (*NAMES[5:], *NAMES[:5]))
    assert (split.name, split.labels[:10]) == ("test", (5, 6, 7, 8, 9, 0, 1, 2, 3, 4))
    assert len(open_split(f"cifar10:{cifar}", NAMES, "Train")) == 50
    with pytest.raises(DataError, match="no split 'val'; it has train and test"):
        open_split(f"cifar10:{cifar}", NAMES, "val")
    with pytest.raises(DataError, match="the model does not know: flag"):
        open_split(f"cifar10:{cifar}", [name for name in NAMES if name != "flag"])


def test_what_is_missing_is_named_and_how_to_get_it(cifar: Path, mnist: Path) -> None:
    for source in ("cifar10:/no/where", f"cifar100:{cifar}", f"fashion-mnist:{mnist}"):
        error = refusal(source)
        assert "does not exist" in error.message or "holds no" in error.message
        assert "download=True" in str(error.hint)
    assert "is not a folder" in refusal(f"mnist:{__file__}").message
    (cifar / "cifar-10-batches-py/data_batch_3").unlink()
    (cifar / "cifar-10-batches-py/batches.meta").unlink()
    assert "lacks data_batch_3, batches.meta of CIFAR-10" in refusal(f"cifar10:{cifar}").message
    (mnist / "MNIST/raw/t10k-labels-idx1-ubyte").unlink()
    error = refusal(f"mnist:{mnist}")
    assert "lacks t10k-labels-idx1-ubyte" in error.message
    assert f"torchvision.datasets.MNIST('{mnist}', download=True)" in str(error.hint)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("cifar:/data", r"'cifar' is no published set .*; did you mean cifar10"),
        ("fashion_mnist:/data", r"did you mean fashion-mnist"),
        ("imagenet:/data", r"it reads cifar10:DIR, cifar100:DIR, mnist:DIR, fashion-mnist:DIR"),
        ("mnist:", r"mnist: does not say where MNIST lies; give mnist:DIR"),
        ("cifar10", r"cifar10 does not say where CIFAR-10 lies; give cifar10:DIR"),
    ],
)
def test_what_is_no_set_is_a_matter_of_usage(source: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        open_data(source)
    with pytest.raises(UsageError, match=message):
        open_split(source, NAMES)


def test_a_path_that_exists_is_that_path(
    tmp_path: Path, cifar: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], "does not name the classes"),
        (["a", "a"], "does not name the classes"),
        ("ab", "does not name the classes"),
        ([b"\xff\xfe", b"b"], "not UTF-8"),
        (NAMES[:9], "the label of picture 9 is 9"),
    ],
)
def test_names_of_classes_are_checked(cifar: Path, names: object, message: str) -> None:
    meta = pickle.dumps({b"label_names": names}, 2)
    (cifar / "cifar-10-batches-py" / "batches.meta").write_bytes(meta)
    assert message in refusal(f"cifar10:{cifar}").message


def test_sets_that_are_not_whole_are_said(cifar: Path) -> None:
    file = cifar / "cifar-10-batches-py" / "test_batch"
    file.write_bytes(pickle.dumps({"data": np.zeros((1, 3072), "u1"), "labels": [4]}))
    lacks = [line for line in open_data(f"cifar10:{cifar}").notices if "no pictures of 9" in line]
    assert lacks[0].startswith("test has no pictures of 9 of 10 classes: ")
    file.write_bytes(pickle.dumps({"data": np.zeros((0, 3072), "u1"), "labels": []}))
    assert "holds no pictures of test" in refusal(f"cifar10:{cifar}").message
    for name in TRAIN:
        content = {"data": np.zeros((2, 3072), "u1"), "labels": [0, 1]}
        (file.parent / name).write_bytes(pickle.dumps(content))
    assert "train of" in refusal(f"cifar10:{cifar}").message


def test_a_pipe_in_place_of_a_file_is_refused(cifar: Path, mnist: Path) -> None:
    for folder, name, source in (
        ("cifar-10-batches-py", "data_batch_4", "cifar10"),
        ("MNIST/raw", "train-images-idx3-ubyte", "mnist"),
    ):
        file = cifar / folder / name
        file.unlink()
        os.mkfifo(file)
        assert f"{file} is not a regular file" in refusal(f"{source}:{cifar}").message


def idx(magic: int, *sides: int, content: bytes = b"") -> bytes:
    return struct.pack(f">{1 + len(sides)}I", magic, *sides) + content


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cut off"),
        (idx(2051, 1)[:7], "cut off"),
        (idx(2049, 1, 28, 28, content=bytes(784)), "begins with 00000801"),
        (b"\x80\x02}q\x00." + bytes(100), "no idx file of pictures"),
        (idx(2051, 1, 32, 32, content=bytes(1024)), "pictures of 32 x 32, not 28 x 28"),
        (idx(2051, 2, 28, 28, content=bytes(784)), "2 items"),
        (idx(2051, 1, 28, 28, content=bytes(785)), "1 items"),
        (idx(2051, 0xFFFFFFFF, 28, 28), "states 4,294,967,295 items"),
        (idx(2051, 3, 28, 28, content=bytes(3 * 784)), "holds 3 pictures"),
        (idx(2051, 0, 28, 28), "holds 0 pictures"),
    ],
)
def test_idx_files_that_do_not_add_up_are_refused(
    mnist: Path, data: bytes, message: str, packed: bool
) -> None:
    file = mnist / "MNIST/raw/train-images-idx3-ubyte"
    file.unlink()
    if packed:
        file = file.with_name(f"{file.name}.gz")
        data = gzip.compress(data)
    file.write_bytes(data)
    error = refusal(f"mnist:{mnist}")
    assert str(file) in error.message
    assert message in error.message


def test_labels_and_packing_are_checked(mnist: Path) -> None:
    labels = mnist / "MNIST/raw/train-labels-idx1-ubyte"
    whole = labels.read_bytes()
    labels.write_bytes(whole[:-1] + b"\x0a")
    assert "the label of picture 49 is 10" in refusal(f"mnist:{mnist}").message
    labels.unlink()
    packed = labels.with_name(f"{labels.name}.gz")
    packed.write_bytes(gzip.compress(whole)[:-12])
    assert f"{packed} is cut off" in refusal(f"mnist:{mnist}").message
    packed.write_bytes(b"no gzip at all")
    assert f"{packed} is damaged" in refusal(f"mnist:{mnist}").message
    broken = bytearray(gzip.compress(whole))
    broken[-6] ^= 1
    packed.write_bytes(broken)
    assert "CRC" in refusal(f"mnist:{mnist}").message
    broken[12] ^= 0xFF
    packed.write_bytes(broken)
    assert str(packed) in refusal(f"mnist:{mnist}").message
    packed.write_bytes(gzip.compress(whole))
    assert len(open_data(f"mnist:{mnist}").splits["train"]) == 40
