import gzip
import os
import pickle
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from zoo.data.decode import decode
from zoo.data.loader import load_batches
from zoo.data.pickled import MAX_OPCODES, NotPlain, read_pickle
from zoo.data.sources import EMBEDDED, open_data, open_split
from zoo.data.split import ArraySplit
from zoo.errors import DataError, UsageError
from zoo.spec import Preprocess

NAMES = sorted(folder.name for folder in (EMBEDDED / "train").iterdir())
TRAIN = [f"data_batch_{number}" for number in range(1, 6)]


@pytest.fixture(scope="module")
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


def write_cifar(root: Path, pixels: np.ndarray) -> Path:
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


def write_mnist(root: Path, pixels: np.ndarray, packed: bool = False, name: str = "MNIST") -> Path:
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
    return write_cifar(tmp_path / "root", pixels)


@pytest.fixture
def mnist(tmp_path: Path, pixels: np.ndarray) -> Path:
    return write_mnist(tmp_path / "root", pixels)


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


def test_cifar100_and_fashion_mnist_too(tmp_path: Path, pixels: np.ndarray) -> None:
    folder = tmp_path / "cifar-100-python"
    folder.mkdir()
    for name, part in (("train", pixels[:5]), ("test", pixels[5:])):
        labels = list(range(10)) * len(part)
        data = planes(part.reshape(-1, 32, 32, 3))
        content = {"data": data, "fine_labels": labels, "coarse_labels": [0] * len(labels)}
        (folder / name).write_bytes(pickle.dumps(content))
    (folder / "meta").write_bytes(pickle.dumps({"fine_label_names": NAMES, "coarse": ["x"]}))
    data = open_data(f"cifar100:{tmp_path}")
    assert (data.name, data.classes, len(data.splits["test"])) == ("CIFAR-100", tuple(NAMES), 20)
    data = open_data(f"fashion-mnist:{write_mnist(tmp_path, pixels, name='FashionMNIST')}")
    assert (data.name, data.classes) == ("Fashion-MNIST", tuple(datasets.FashionMNIST.classes))


def test_the_folder_itself_and_packing_change_nothing(
    tmp_path: Path, cifar: Path, mnist: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    fingerprint = open_data(f"cifar10:{cifar}").fingerprint
    assert open_data(f"cifar10:{cifar}/cifar-10-batches-py").fingerprint == fingerprint
    monkeypatch.setenv("HOME", str(cifar.parent))
    assert open_data(f"CIFAR10:~/{cifar.name}").fingerprint == fingerprint
    fingerprint = open_data(f"mnist:{mnist}").fingerprint
    assert open_data(f"mnist:{mnist}/MNIST/raw").fingerprint == fingerprint
    packed = write_mnist(tmp_path / "packed", pixels, packed=True)
    assert open_data(f"mnist:{packed}").fingerprint == fingerprint


def test_seed_and_pixels_decide(cifar: Path, pixels: np.ndarray, tmp_path: Path) -> None:
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


class Runs:
    """Whatever unpickles this writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.path}",)


def shaped(shape: str) -> bytes:
    """Pickle an array of one byte that states another shape."""
    whole = pickle.dumps({"data": np.zeros(1, "u1"), "labels": [0]}, 4)
    assert whole.count(b"K\x01\x85") == 1
    return whole.replace(b"K\x01\x85", shape.encode("latin-1"))


RECONSTRUCT = b"cnumpy.core.multiarray\n_reconstruct\n"
EVIL = {
    "no pickle": b"not a pickle",
    "nothing": b"",
    "a name": b"\x80\x02cos\nsystem\n.",
    "a call": b"\x80\x02cos\nsystem\nU\x02id\x85R.",
    "a name of the stack": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R.",
    "eval": b"\x80\x02cbuiltins\neval\nU\x011\x85R.",
    "an instance": b"\x80\x02(U\x02idios\nsystem\n.",
    "an object": b"\x80\x02(cos\nsystem\nU\x02ido.",
    "newobj": b"\x80\x02cnumpy\nndarray\nK\x01\x85\x81.",
    "ndarray called": b"\x80\x02cnumpy\nndarray\n\x8a\x06\0\0\0\0\0\x01\x85\x85R.",
    "dtype of a name": b"\x80\x02cnumpy\ndtype\ncnumpy\nndarray\nK\0K\x01\x87R.",
    "encode to rot13": b"\x80\x02c_codecs\nencode\nX\x01\0\0\0aX\x05\0\0\0rot13\x86R.",
    "reconstruct a dtype": b"\x80\x02" + RECONSTRUCT + b"cnumpy\ndtype\nK\0\x85U\x01b\x87R.",
    "a call of a text": b"\x80\x02U\x06encodeU\x01aU\x06latin1\x86R.",
    "persistent": b"\x80\x02U\x01aQ.",
    "extension": b"\x80\x02\x82\x01.",
    "protocol 0": b"(dp0\nS'data'\np1\nI1\ns.",
    "no dict": pickle.dumps([1, 2]),
    "floats": pickle.dumps({"data": np.zeros((2, 3072)), "labels": [0, 1]}),
    "objects": pickle.dumps({"data": np.array([{}, {}]), "labels": [0, 1]}),
    "a structure": pickle.dumps({"data": np.zeros(2, "u1,u1"), "labels": [0, 1]}),
    "one dimension": pickle.dumps({"data": np.zeros(3072, "u1"), "labels": [0]}),
    "narrow": pickle.dumps({"data": np.zeros((2, 3071), "u1"), "labels": [0, 1]}),
    "a list": pickle.dumps({"data": [0] * 3072, "labels": [0]}),
    "too few labels": pickle.dumps({"data": np.zeros((2, 3072), "u1"), "labels": [0]}),
    "no labels": pickle.dumps({"data": np.zeros((2, 3072), "u1")}),
    "a label too high": pickle.dumps({"data": np.zeros((1, 3072), "u1"), "labels": [10]}),
    "a label below": pickle.dumps({"data": np.zeros((1, 3072), "u1"), "labels": [-1]}),
    "true": pickle.dumps({"data": np.zeros((1, 3072), "u1"), "labels": [True]}),
    "a text as label": pickle.dumps({"data": np.zeros((1, 3072), "u1"), "labels": ["0"]}),
    "huge": shaped("\x8a\x06\0\0\0\0\0\x01M\0\x0c\x86"),
    "negative": shaped("J\xff\xff\xff\xffJ\xff\xff\xff\xff\x86"),
    "text as shape": shaped("\x8c\x01a\x94"),
    "never filled": b"\x80\x02}U\x04data" + RECONSTRUCT + b"cnumpy\nndarray\nK\0\x85U\x01b\x87Rs.",
    "twice": b"\x80\x02}(U\x04dataK\x01U\x04dataK\x02u.",
    "a key of lists": b"\x80\x02}(]K\x01u.",
    "appends to a dict": b"\x80\x02}K\x01a.",
    "marks below": b"\x80\x02(((tttttt.",
    "unknown memo": b"\x80\x02h\x07.",
    "a length beyond": b"\x80\x02T\xff\xff\xff\x7fabc.",
    "a length below zero": b"\x80\x02T\xff\xff\xff\xffabc.",
    "an enormous length": b"\x80\x04\x8e" + b"\xff" * 8 + b"abc.",
}  # fmt: skip


@pytest.mark.parametrize("kind", EVIL)
def test_pickles_of_anything_else_are_refused(cifar: Path, kind: str) -> None:
    file = cifar / "cifar-10-batches-py" / "data_batch_2"
    file.write_bytes(EVIL[kind])
    error = refusal(f"cifar10:{cifar}")
    assert str(file) in error.message
    assert error.hint


def test_nothing_of_a_pickle_runs(cifar: Path, tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    for protocol in range(6):
        evil = pickle.dumps({b"data": Runs(mark), b"labels": [0]}, protocol)
        for name in ("data_batch_1", "test_batch", "batches.meta"):
            file = cifar / "cifar-10-batches-py" / name
            whole = file.read_bytes()
            file.write_bytes(evil)
            assert str(file) in refusal(f"cifar10:{cifar}").message
            file.write_bytes(whole)
        assert not mark.exists()
        pickle.loads(evil)
        assert mark.exists()
        mark.unlink()


def test_a_file_cut_off_anywhere_is_refused(cifar: Path) -> None:
    for name in ("data_batch_1", "data_batch_3"):
        whole = (cifar / "cifar-10-batches-py" / name).read_bytes()
        read_pickle(whole)
        for length in [*range(0, 200), *range(200, len(whole), 997), len(whole) - 1]:
            with pytest.raises(NotPlain):
                read_pickle(whole[:length])


@pytest.mark.filterwarnings("ignore:invalid escape:DeprecationWarning")
def test_damaged_bytes_raise_one_kind_of_error() -> None:
    generator = random.Random(0)
    data = np.zeros((2, 8), "u1")
    content = {b"data": data, b"labels": [1, 2], b"filenames": [b"a", b"b"]}
    wholes = [pickle.dumps(content, protocol) for protocol in (2, 3, 4, 5)]
    refused = 0
    for whole in wholes * 500:
        damaged = bytearray(whole)
        for _ in range(generator.randint(1, 4)):
            damaged[generator.randrange(len(damaged))] = generator.randrange(256)
        try:
            read_pickle(bytes(damaged))
        except NotPlain:
            refused += 1
    assert refused > 500


def test_a_pickle_that_grows_is_refused() -> None:
    with pytest.raises(NotPlain, match="more than 1,000,000 opcodes"):
        read_pickle(b"\x80\x02" + b"]" * (MAX_OPCODES + 1) + b".")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("order", ["C", "F"])
def test_every_way_to_write_a_batch_is_read(pixels: np.ndarray, protocol: int, order: Any) -> None:
    data = planes(pixels[0])
    names = [b"a.png", b"\xc3\xa9.png"]
    content = {b"data": np.array(data, order=order), b"labels": [1, 300], b"filenames": names}
    texts = {key.decode(): value for key, value in content.items()}
    for written in (content, texts):
        read = read_pickle(pickle.dumps(written, protocol))
        assert np.array_equal(read["data"].values, data)
        assert (read["labels"], read["filenames"]) == ([1, 300], names)


def test_the_pickle_of_python_2_is_one(pixels: np.ndarray) -> None:
    data = planes(pixels[0])
    written = python2(data, list(range(10)))
    loaded, read = pickle.loads(written, encoding="bytes"), read_pickle(written)
    assert np.array_equal(loaded[b"data"], data)
    assert np.array_equal(read["data"].values, data)
    assert loaded[b"filenames"][9] == read["filenames"][9] == b"9.png"
    assert loaded[b"labels"] == read["labels"] == list(range(10))


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
