"""The one way to weights: kinds of files, headers, memory, and that there is no other way."""

import ast
import hashlib
import json
import os
import random
import socket
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load, load_file, save, save_file

import zoo
from zoo import tensorfile

PACKAGE = Path(zoo.__file__).parent
DTYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.float8_e4m3fn,
    torch.float8_e5m2,
    torch.complex64,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.uint16,
    torch.uint32,
    torch.uint64,
    torch.bool,
]


def refusal(path) -> zoo.WeightsError:
    with pytest.raises(zoo.WeightsError) as caught:
        tensorfile.read_tensors(path)
    assert str(path) in caught.value.message
    return caught.value


def test_tensors_equal_those_of_safetensors(tmp_path):
    numbers = torch.arange(24).remainder(2)
    tensors = {str(dtype): numbers.to(dtype).reshape(2, 3, 4) for dtype in DTYPES}
    tensors |= {
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 4),
        "odd": torch.ones(3).bool(),
    }
    path = tmp_path / "all.safetensors"
    save_file(tensors, path, {"a": "b"})
    ours, theirs = tensorfile.read_tensors(path), load_file(path)
    assert ours.tensors.keys() == theirs.keys()
    for name, tensor in theirs.items():
        assert ours.tensors[name].dtype == tensor.dtype
        assert ours.tensors[name].shape == tensor.shape
        assert ours.tensors[name].contiguous().untyped_storage().tolist() == (
            tensor.contiguous().untyped_storage().tolist()
        )
    assert ours.metadata == {"a": "b"}
    assert ours.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def file_of(header, data=b"", pad=b"") -> bytes:
    """The bytes of a safetensors file with a header that safetensors would not write."""
    text = (header if isinstance(header, str) else json.dumps(header)).encode() + pad
    return struct.pack("<Q", len(text)) + text + data


def entry(begin, end, shape=None, dtype="F32"):
    shape = [(end - begin) // 4] if shape is None else shape
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize("pad", range(9))
def test_unaligned_header_and_tensors_are_read(tmp_path, pad):
    header = {"flag": entry(0, 3, [3], "BOOL"), "a": entry(3, 11), "b": entry(11, 19)}
    data = bytes([1, 0, 1]) + struct.pack("<4f", 1.0, 2.0, 3.0, 4.0)
    path = tmp_path / "odd.safetensors"
    path.write_bytes(file_of(header, data, b" " * pad))
    tensors = tensorfile.read_tensors(path).tensors
    assert tensors["a"].tolist() == [1.0, 2.0]
    assert tensors["b"].tolist() == [3.0, 4.0]
    assert tensors["flag"].tolist() == [True, False, True]
    assert all(each.data_ptr() % each.itemsize == 0 for each in tensors.values())


HEADERS = {
    "overlap": ({"a": entry(0, 8), "b": entry(4, 12)}, 12, "tensor b overlaps another"),
    "same": ({"a": entry(0, 8), "b": entry(0, 8)}, 8, "overlaps another"),
    "hole": ({"a": entry(0, 4), "b": entry(8, 12)}, 12, "tensor b follows a gap"),
    "late": ({"a": entry(4, 8)}, 8, "follows a gap"),
    "beyond": ({"a": entry(0, 8)}, 4, "take 8 bytes, and it has 4"),
    "more": ({"a": entry(0, 8)}, 12, "take 8 bytes, and it has 12"),
    "size": ({"a": entry(0, 8, [3])}, 8, "not the size of its shape"),
    "backwards": ({"a": entry(8, 0, [-2])}, 8, "impossible shape"),
    "huge": ({"a": entry(0, 8, [1 << 62, 1 << 62])}, 8, "not the size of its shape"),
    "nothing huge": ({"a": entry(0, 0, [0, 1 << 62, 1 << 62])}, 0, "not a valid"),
    "fraction": ({"a": entry(0, 8, [2.0])}, 8, "impossible shape"),
    "true": ({"a": entry(0, 4, [True])}, 4, "impossible shape"),
    "text": ({"a": entry(0, 8, "2")}, 8, "impossible shape"),
    "deep": ({"a": entry(0, 4, [1] * 100)}, 4, "impossible shape"),
    "position": ({"a": {**entry(0, 4), "data_offsets": [0]}}, 4, "no position"),
    "dtype": ({"a": entry(0, 4, dtype="F128")}, 4, "unknown dtype 'F128'"),
    "list as dtype": ({"a": entry(0, 4, dtype=[])}, 4, "unknown dtype"),
    "key more": ({"a": {**entry(0, 4), "x": 1}}, 4, "not described by"),
    "key less": ({"a": {"dtype": "F32", "shape": [1]}}, 4, "not described by"),
    "no object": ({"a": 3}, 4, "not described by"),
    "list": ("[1]", 0, "its header is missing"),
    "metadata": ({"__metadata__": {"a": 1}}, 0, "metadata are not text"),
    "metadata list": ({"__metadata__": []}, 0, "metadata are not text"),
    "twice": ('{"a": 1, "a": 1}', 0, "a name appears twice"),
    "inner twice": ('{"a": {"dtype": "F32", "dtype": "F64"}}', 0, "a name appears twice"),
    "surrogate": ('{"\\ud800": 1}', 0, "surrogates not allowed"),
    "nested": ('{"a":' + "[" * 100_000, 0, "not a valid"),
    "digits": ('{"a":' + "9" * 100_000 + "}", 0, "not a valid"),
    "cut": ('{"a":', 0, "not a valid"),
}


@pytest.mark.parametrize("case", HEADERS)
def test_damaged_header_is_refused(tmp_path, case):
    header, size, reason = HEADERS[case]
    path = tmp_path / "bad.safetensors"
    path.write_bytes(file_of(header, bytes(size)))
    assert reason in refusal(path).message


def test_flag_other_than_true_or_false_is_refused(tmp_path):
    path = tmp_path / "flag.safetensors"
    path.write_bytes(file_of({"a": entry(0, 2, [2], "BOOL")}, b"\x01\x02"))
    assert "values other than true and false" in refusal(path).message


def pickled(tmp_path, **options) -> bytes:
    torch.save({"a": torch.ones(2)}, tmp_path / "saved.pth", **options)
    return (tmp_path / "saved.pth").read_bytes()


KINDS = {
    "pickle": (b"\x80\x04\x95", "a pickle, which can run code", "zoo import"),
    "zip": (b"PK\x03\x04" + bytes(60), "a zip archive", "zoo import"),
    "gzip": (b"\x1f\x8b\x08", "compressed by gzip", "unpack it"),
    "xz": (b"\xfd7zXZ\x00", "compressed by xz", "unpack it"),
    "zstd": (b"\x28\xb5\x2f\xfd", "compressed by Zstandard", "unpack it"),
    "tar": (b"x" * 257 + b"ustar", "a tar archive", "unpack it"),
    "html": (b"\n <!DOCTYPE html><html>", "an HTML page", "download the file itself"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS", "git lfs pull"),
    "gguf": (b"GGUF\x03\0\0\0", "GGUF", "as safetensors"),
    "hdf5": (b"\x89HDF\r\n\x1a\n", "HDF5", "as safetensors"),
    "numpy": (b"\x93NUMPY\x01\x00", "NumPy", "as safetensors"),
    "json": (b'{"weight_map": {}}', "a JSON file", ".safetensors file itself"),
    "png": (b"\x89PNG\r\n\x1a\n", "a PNG image", "as data"),
    "empty": (b"", "empty", "fetch it again"),
}


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ""])
@pytest.mark.parametrize("kind", KINDS)
def test_other_kind_of_file_is_refused_by_name(tmp_path, kind, suffix):
    data, name, remedy = KINDS[kind]
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(data)
    error = refusal(path)
    assert name in error.message
    assert remedy in error.hint


def test_checkpoint_of_torch_is_called_pickle(tmp_path):
    for options in ({}, {"_use_new_zipfile_serialization": False}):
        path = tmp_path / "renamed.safetensors"
        path.write_bytes(pickled(tmp_path, **options))
        assert "a pickle" in refusal(path).message


def test_page_instead_of_published_file_is_named(tmp_path):
    path = tmp_path / "net-01234567.pth"
    path.write_bytes(KINDS["html"][0])
    with pytest.raises(zoo.WeightsError, match="an HTML page, not weights"):
        tensorfile.read_checkpoint(path, "01234567")


def test_special_files_are_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "fifo")
    assert "is a FIFO, not a regular file" in refusal(tmp_path / "fifo").message
    assert "is a folder, not a regular file" in refusal(tmp_path).message
    assert "is a device, not a regular file" in refusal(Path("/dev/zero")).message
    assert "does not exist" in refusal(tmp_path / "none").message
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    assert "cannot read" in refusal(tmp_path / "loop").message
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
        assert "is a socket, not a regular file" in refusal(tmp_path / "socket").message


def test_file_larger_than_memory_is_refused(tmp_path):
    path = tmp_path / "sparse.safetensors"
    size = 1 << 43
    path.write_bytes(file_of({"a": entry(0, size, [size // 4])}))
    os.truncate(path, size)
    assert "more than the memory of this machine" in refusal(path).message


PEAK = """
import sys
from pathlib import Path
import torch
from zoo.models.state_fit import check_values
from zoo.tensorfile import read_tensors

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("VmHWM"))

torch.aminmax(torch.ones(8))
before = peak()
file = read_tensors(Path(sys.argv[1]))
check_values(file.tensors, {}, "file")
print(peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_file_takes_its_size_in_memory(tmp_path):
    path = tmp_path / "large.safetensors"
    save_file({"one": torch.ones(40 << 20), "two": torch.ones(10, 1 << 20)}, path)
    done = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, check=True)
    path.unlink()
    assert 1.0 < int(done.stdout) / (200 << 20) < 1.2


def mutated(data: bytes, seed: int) -> bytes:
    """Return a file with one to three seeded changes, mostly of its header."""
    chance = random.Random(seed)
    for _ in range(chance.randint(1, 3)):
        data = chance.choice(MUTATIONS)(bytearray(data), chance)
    return bytes(data)


def flip(data, chance):
    if data:
        position = chance.randrange(min(len(data), 400)) if chance.random() < 0.8 else -1
        data[position] ^= 1 << chance.randrange(8)
    return data


def change_length(data, chance):
    length = int.from_bytes(data[:8], "little")
    near = length + chance.randint(-9, 9)
    value = chance.choice([near, 0, 1, 1 << 24, 1 << 31, (1 << 63) - 1, (1 << 64) - 1])
    return struct.pack("<Q", value % (1 << 64)) + data[8:]


def cut(data, chance):
    return data[: chance.randrange(len(data) + 1)]


def extend(data, chance):
    return data + bytes(chance.randrange(1, 99))


def change_header(data, chance):
    """Parse the header, and change a value, or a name, in it."""
    length = int.from_bytes(data[:8], "little")
    try:
        header = json.loads(bytes(data[8 : 8 + length]))
        name = chance.choice(list(header))
        key = chance.choice(["dtype", "shape", "data_offsets", "more"])
        header[name][key] = chance.choice(JUNK)
    except (ValueError, LookupError, TypeError):
        return data
    text = json.dumps(header)
    if chance.random() < 0.2:  # a name twice
        text = text[:-1] + f", {json.dumps(name)}: {json.dumps(header[name])}}}"
    return file_of(text, bytes(data[8 + length :]))


JUNK = [
    *("F32", "F64", "F16", "I64", "BOOL", "F8_E4M3", "F4", "C64", "X", "", None, True, 1.5, -1, {}),
    *([], [0], [1], [2, 3], [6], [1 << 62, 4], [0, 1 << 63], [-1], [None], [[1]], [0, 24], [24, 0]),
    *([24, 40], [0, 1 << 70], ["0", "8"], "\u202e", "\x1b[2J", [1] * 99),
]
MUTATIONS = [flip, flip, change_length, cut, extend, change_header, change_header]


def check_mutations(folder, seeds) -> dict[str, int]:
    """Read mutated files: each is refused, or has the tensors that safetensors reads."""
    tensors = {"a": torch.arange(6.0), "b": torch.ones(2, 2), "n": torch.tensor([3])}
    good = save(tensors, {"zoo": "{}"})
    counts = {"read": 0, "refused": 0}
    path = folder / "mutated.safetensors"
    for seed in seeds:
        data = mutated(good, seed)
        path.write_bytes(data)
        try:
            ours = tensorfile.read_tensors(path).tensors
        except zoo.WeightsError:
            counts["refused"] += 1
            continue
        counts["read"] += 1
        theirs = load(data)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[n].nan_to_num(), theirs[n].nan_to_num()) for n in theirs)
    return counts


def test_mutated_files_are_refused_or_read_as_safetensors(tmp_path):
    counts = check_mutations(tmp_path, range(1_000))
    assert counts["refused"] > 500
    assert counts["read"] > 10  # the mutations do not all hit


@pytest.mark.faults
def test_many_mutated_files_are_refused_or_read(tmp_path):
    counts = check_mutations(tmp_path, range(1_000, 100_000))
    assert counts["refused"] > 50_000
    assert counts["read"] > 1_000


def test_what_safetensors_refuses_is_refused(tmp_path):
    good = save({"a": torch.arange(6.0), "b": torch.ones(2, 2)})
    path = tmp_path / "mutated.safetensors"
    refused = 0
    for seed in range(500):
        data = mutated(good, seed)
        try:
            load(data)
        except (SafetensorError, ValueError, KeyError, RuntimeError, TypeError):
            path.write_bytes(data)
            refusal(path)
            refused += 1
    assert refused > 250


# Names that open weights, and where they may be: the file that is the way in, the program that
# opens a user's pickle in a process of its own, and the conformance checks, which compare with what
# a plain library reads from zoo's own file.
OPENERS = {"load_file", "safe_open", "deserialize", "load_model", "load_state_dict_from_url"}
MODULES = {"pickle", "safetensors", "safetensors.torch", "torch.serialization", "joblib", "dill"}
ALLOWED = {
    "tensorfile.py": {"import pickle", "torch.load"},
    "tensorstream.py": {"import safetensors.torch"},
    "models/unpickle.py": {"import pickle", "import safetensors.torch", "torch.serialization"},
    "testing/fresh.py": {"import safetensors.torch", "load_file"},
    "testing/values.py": {"import safetensors.torch", "load_file"},
    "testing/task_checks.py": {"import pickle", "pickle.loads"},
    "data/workers.py": {"import pickle", "pickle.loads"},
    # A loaded model that Python's own pickle sends to another process.
    "inference/predictor.py": {"import pickle", "pickle.loads"},
}


def opened_in(source: str) -> set[str]:
    """Return what of a module may open weights."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {f"import {each.name}" for each in node.names if each.name in MODULES}
        elif isinstance(node, ast.ImportFrom) and node.module in MODULES:
            found |= {f"import {node.module}"} - {"import pickle"}
            found |= {each.name for each in node.names if each.name in OPENERS}
        elif isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            names = ("torch.load", "torch.serialization", "np.load", "numpy.load", "torch.hub")
            if text in names or text.startswith(("pickle.load", "torch.jit.load")):
                found.add(text)
            elif node.attr in OPENERS - {"load_model"}:
                found.add(node.attr)
    return found


def test_no_other_module_opens_weights():
    found = {
        path.relative_to(PACKAGE).as_posix(): opened_in(path.read_text(encoding="utf-8"))
        for path in PACKAGE.rglob("*.py")
    }
    assert {name: names for name, names in found.items() if names} == ALLOWED
    # The search finds what it is for.
    assert opened_in("import torch\ntorch.load(path)") == {"torch.load"}
    assert opened_in("from safetensors import safe_open") == {"import safetensors", "safe_open"}
    assert opened_in("import numpy as np\nx = np.load(path)") == {"np.load"}
