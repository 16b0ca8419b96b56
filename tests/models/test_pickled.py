"""Checkpoints of a user: opened without code, in bounded memory and time."""

import hashlib
import os
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import zoo
from zoo.models import pickled, unpickle
from zoo.models.pickled import read_pickled


class Command:
    """An object that runs a command when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return os.system, (f"touch {self.target}",)


@pytest.fixture
def foreign(monkeypatch) -> nn.Module:
    """A network whose class only its author's module has."""
    module = types.ModuleType("theirs")
    module.Net = type("Net", (nn.Linear,), {"__module__": "theirs"})
    monkeypatch.setitem(sys.modules, "theirs", module)
    return module.Net(2, 2)


def refusal(path: Path) -> str:
    return unpickle.convert(path, path.with_suffix(".out"))["error"]


def test_checkpoint_is_read_in_another_process(tmp_path):
    path = tmp_path / "own.pth"
    shared = torch.arange(6.0)
    state = OrderedDict(a=shared, b=shared[:2], c=nn.Parameter(torch.ones(1)), version=3)
    torch.save({"model": {"state_dict": state}, "class_to_idx": {"oak": 1, "ash": 0}}, path)
    read = read_pickled(path)
    assert read.keys == ("model", "state_dict")
    assert (read.others, read.classes) == (("version",), ("ash", "oak"))
    assert read.file.tensors.keys() == {"a", "b", "c"}
    assert torch.equal(read.file.tensors["b"], torch.tensor([0.0, 1.0]))
    assert read.file.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("zipped", [True, False])
def test_file_that_needs_code_names_what_it_calls(tmp_path, foreign, zipped):
    path, mark = tmp_path / "own.pt", tmp_path / "mark"
    for content, name in ((foreign, "theirs.Net"), ({"e": Command(mark)}, "posix.system")):
        torch.save(content, path, _use_new_zipfile_serialization=zipped)
        assert refusal(path) == f"needs code to open: it calls {name}"
    for protocol in range(2, 6):
        path.write_bytes(pickle.dumps(Command(mark), protocol))
        assert refusal(path) == "needs code to open: it calls posix.system"
    assert not mark.exists()


def test_numpy_numbers_in_checkpoint_are_named(tmp_path):
    path = tmp_path / "own.pt"
    torch.save({"state_dict": {"a": torch.ones(1)}, "accuracy": np.float64(0.5)}, path)
    assert "scalar, numpy.dtype" in refusal(path)


def test_nested_state_dicts_are_found(tmp_path):
    path, out = tmp_path / "own.pt", tmp_path / "own.safetensors"
    state, other = {"a": torch.ones(1)}, {"a": torch.zeros(1)}
    optimizer = {"state": {0: {"step": torch.ones(1)}}, "param_groups": [{"lr": 1}]}
    cases = {
        (): state | {"epoch": 3},
        ("state_dict",): {"state_dict": state, "optimizer": optimizer},
        ("state_dict_ema",): {"state_dict": other, "state_dict_ema": state},
        ("generator",): {"generator": state, "epoch": 3},
        ("model", "net"): {"model": {"net": state}, "loss": torch.ones(1)},
    }
    for keys, content in cases.items():
        torch.save(content, path)
        assert tuple(unpickle.convert(path, out)["keys"]) == keys
        assert torch.equal(load_file(out)["a"], torch.ones(1))


def test_checkpoint_without_one_state_dict_is_refused(tmp_path):
    path, state = tmp_path / "own.pt", {"a": torch.ones(1)}
    cases = {
        "contains several groups of tensors: one, two": {"one": state, "two": state},
        "contains no state dict: a list without tensors by name": [torch.ones(1)],
        "contains no state dict: a dict without tensors by name": {"epoch": 3},
        "contains a, a sparse_coo tensor": {"a": torch.ones(2).to_sparse()},
        "contains a, a meta tensor": {"a": torch.ones(2, device="meta")},
        "contains a, a complex tensor": {"a": torch.ones(2, dtype=torch.complex64)},
    }
    for reason, content in cases.items():
        torch.save(content, path)
        assert refusal(path) == reason


def test_class_names_are_found_in_their_order(tmp_path):
    path, out = tmp_path / "own.pt", tmp_path / "own.safetensors"
    names = [f"c{number}" for number in range(12)]
    cases = [
        ({"classes": names}, names),
        ({"class_names": tuple(names)}, names),
        ({"class_to_idx": {name: names.index(name) for name in sorted(names)}}, names),
        ({"idx_to_class": dict(enumerate(names))}, names),
        ({"classes": 12}, []),
        ({"classes": ["a", "a"]}, []),
        ({"class_to_idx": {"a": 1, "b": 2}}, []),
        ({"class_to_idx": {"a": 0, "b": 0}}, []),
        ({"labels": torch.ones(2)}, []),
        ({"class_to_idx": {"a": [0]}}, []),
    ]
    for content, expected in cases:
        torch.save({"state_dict": {"a": torch.ones(1)}, **content}, path)
        assert unpickle.convert(path, out)["classes"] == expected, content


def test_program_of_torchscript_is_refused(tmp_path):
    path = tmp_path / "script.pt"
    torch.jit.script(nn.Linear(2, 2)).save(path)
    assert refusal(path) == "is a TorchScript program, which is code"


def test_damaged_files_are_refused(tmp_path):
    path = tmp_path / "own.pt"
    for zipped in (True, False):
        torch.save({"a": torch.ones(100)}, path, _use_new_zipfile_serialization=zipped)
        whole = path.read_bytes()
        for size in (0, 1, 64, len(whole) // 2, len(whole) - 30):
            path.write_bytes(whole[:size])
            assert "is damaged, or no checkpoint" in refusal(path) or "is no checkpoint" in refusal(
                path
            )
    with pytest.raises(zoo.WeightsError, match="does not exist"):
        read_pickled(tmp_path / "absent.pt")
    with pytest.raises(zoo.WeightsError, match="not a regular file"):
        read_pickled(tmp_path)


def bomb(path: Path, record: str, content: bytes) -> None:
    """Write a checkpoint with one record replaced by a compressed one."""
    torch.save({"a": torch.ones(1)}, path.with_suffix(".small"))
    with (
        zipfile.ZipFile(path.with_suffix(".small")) as source,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, content if name.endswith(record) else source.read(name))


@pytest.mark.slow
def test_memory_of_reader_is_bounded(tmp_path, monkeypatch):
    monkeypatch.setattr(pickled, "SPARE_BYTES", 32 << 20)
    expanded, compressed = tmp_path / "expanded.pt", tmp_path / "compressed.pt"
    torch.save({"a": torch.zeros(1).expand(1 << 40)}, expanded)
    bomb(compressed, "data.pkl", b"\x80\x02" + b"]0" * (1 << 26))
    assert compressed.stat().st_size < 1 << 20
    for path in (expanded, compressed):
        with pytest.raises(zoo.WeightsError, match=r"takes more than 3\d MiB of memory"):
            read_pickled(path)


def test_time_of_reader_is_bounded(tmp_path, monkeypatch):
    path = tmp_path / "own.pt"
    torch.save({"a": torch.ones(1)}, path)
    monkeypatch.setattr(pickled, "SECONDS", 0)
    with pytest.raises(zoo.WeightsError, match="takes more than 0 s"):
        read_pickled(path)


def test_reader_that_dies_is_a_damaged_file(tmp_path, monkeypatch):
    path = tmp_path / "own.pt"
    torch.save({"a": torch.ones(1)}, path)
    (tmp_path / "dies.py").write_text("import os\nos.abort()\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(pickled, "PROGRAM", "dies")
    with pytest.raises(zoo.WeightsError, match=r"is damaged: .* ended by signal 6"):
        read_pickled(path)
