import os
import pickle
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zoo.data.pickled import MAX_OPCODES, NotPlain, read_pickle
from zoo.data.sources import open_data
from zoo.errors import DataError


def refusal(source: str) -> DataError:
    with pytest.raises(DataError) as caught:
        open_data(source)
    assert caught.value.exit_code == 3
    return caught.value


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
    data = pixels[0].reshape(10, 3072)
    names = [b"a.png", b"\xc3\xa9.png"]
    content = {b"data": np.array(data, order=order), b"labels": [1, 300], b"filenames": names}
    texts = {key.decode(): value for key, value in content.items()}
    for written in (content, texts):
        read = read_pickle(pickle.dumps(written, protocol))
        assert np.array_equal(read["data"].values, data)
        assert (read["labels"], read["filenames"]) == ([1, 300], names)


def test_the_pickle_of_python_2_is_one(
    pixels: np.ndarray, python2_batch: Callable[..., bytes]
) -> None:
    data = pixels[0].reshape(10, 3072)
    written = python2_batch(data, list(range(10)))
    loaded, read = pickle.loads(written, encoding="bytes"), read_pickle(written)
    assert np.array_equal(loaded[b"data"], data)
    assert np.array_equal(read["data"].values, data)
    assert loaded[b"filenames"][9] == read["filenames"][9] == b"9.png"
    assert loaded[b"labels"] == read["labels"] == list(range(10))
