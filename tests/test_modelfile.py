"""Reading and writing of tensors, and the model file."""

import json
import os
import struct
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save, save_file

import zoo
from zoo import modelfile


@pytest.fixture
def tensors():
    return {"b": torch.arange(6.0).reshape(2, 3), "a": torch.tensor([1, 2])}


@pytest.fixture
def card():
    return modelfile.ModelCard(
        backbone="torchvision/resnet18",
        kwargs={"name": "resnet18"},
        heads=(zoo.Head("fc"), zoo.Head("aux.fc", role="aux", loss_weight=0.4, output="aux")),
        task="image-classification",
        schema={"classes": ["käse", "brot"]},
        preprocess=zoo.Preprocess(size=64),
        precision="fp32",
        settings={"seed": 0},
    )


def test_model_file_round_trip(tmp_path, tensors, card):
    path = tmp_path / "model.safetensors"
    digest = modelfile.write_model(path, tensors, card)
    back, file = modelfile.read_model(path)
    assert back == card
    assert file.sha256 == digest
    assert all(torch.equal(file.tensors[name], tensors[name]) for name in tensors)
    assert set(load_file(path)) == {"a", "b"}


def test_model_file_bytes_are_deterministic(tmp_path, tensors, card):
    path = tmp_path / "model.safetensors"
    digest = modelfile.write_model(path, tensors, card)
    code = (
        "import sys; from pathlib import Path; from zoo import modelfile as m\n"
        "card, file = m.read_model(Path(sys.argv[1]))\n"
        "print(m.write_model(Path(sys.argv[2]), dict(reversed(file.tensors.items())), card))\n"
    )
    # Another hash seed than that of this process, with near certainty.
    done = subprocess.run(
        [sys.executable, "-c", code, str(path), str(tmp_path / "again.safetensors")],
        env={**os.environ, "PYTHONHASHSEED": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == digest


def test_tensor_bytes_duplicates_shared_storage(tmp_path):
    shared = torch.arange(4.0)
    data = modelfile.tensor_bytes({"one": shared, "two": shared, "part": shared[:2]})
    (tmp_path / "f.safetensors").write_bytes(data)
    back = load_file(tmp_path / "f.safetensors")
    assert torch.equal(back["one"], back["two"])
    assert torch.equal(back["part"], shared[:2])


def damage(path, kind):
    data = path.read_bytes()
    if kind == "truncated":
        path.write_bytes(data[:-3])
    elif kind == "header cut":
        path.write_bytes(data[:20])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "header too long":
        path.write_bytes(struct.pack("<Q", 1 << 60) + data[8:])
    elif kind == "name twice":
        entry = '"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}'
        header = ("{" + entry + "," + entry + "}").encode()
        path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(4))
    elif kind == "text":
        path.write_text("no tensors here, only text")
    elif kind == "fifo":
        path.unlink()
        os.mkfifo(path)
    elif kind == "missing":
        path.unlink()
    elif kind == "folder":
        path.unlink()
        path.mkdir()


KINDS = [
    "truncated",
    "header cut",
    "empty",
    "header too long",
    "name twice",
    "text",
    "fifo",
    "missing",
    "folder",
]


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_file_is_refused(tmp_path, tensors, card, kind):
    path = tmp_path / "model.safetensors"
    modelfile.write_model(path, tensors, card)
    damage(path, kind)
    with pytest.raises(zoo.WeightsError, match=str(path)):
        modelfile.read_model(path)


@pytest.mark.parametrize("start", [b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05"])
def test_header_length_equal_to_pickle_magic_is_read(tmp_path, start):
    length = int.from_bytes(start, "little")
    path = tmp_path / "odd.safetensors"
    for padding in range(length):
        data = save({"a": torch.ones(2)}, {"padding": "x" * padding})
        if data.startswith(start):
            break
    path.write_bytes(data)
    assert path.read_bytes().startswith(start)
    assert modelfile.read_tensors(path).tensors["a"].tolist() == [1.0, 1.0]


def test_pickle_is_refused_without_running_code(tmp_path):
    trap = tmp_path / "trap"
    source = (
        "import pickle, sys, os\n"
        "class Trap:\n"
        "    def __reduce__(self): return os.mkdir, (sys.argv[1],)\n"
        "open(sys.argv[2], 'wb').write(pickle.dumps({'a': Trap()}))\n"
    )
    path = tmp_path / "evil.pth"
    subprocess.run([sys.executable, "-c", source, str(trap), str(path)], check=True)
    with pytest.raises(zoo.WeightsError, match="pickle"):
        modelfile.read_tensors(path)
    with pytest.raises(zoo.WeightsError, match="without running code"):
        modelfile.read_checkpoint(path)
    assert not trap.exists()


def test_safetensors_without_description_is_refused(tmp_path, tensors):
    path = tmp_path / "plain.safetensors"
    save_file(tensors, path)
    with pytest.raises(zoo.WeightsError, match="not written by zoo"):
        modelfile.read_model(path)


def test_unknown_memory_format_in_description_is_refused(tmp_path, tensors, card):
    path = tmp_path / "model.safetensors"
    assert card.memory_format == "auto"
    plain = {**json.loads(card.to_json()), "settings": {"memory_format": "diagonal"}}
    save_file(tensors, path, {"zoo": json.dumps(plain)})
    with pytest.raises(zoo.WeightsError, match="its memory format cannot be used"):
        modelfile.read_model(path)


def test_newer_format_is_refused(tmp_path, tensors, card):
    path = tmp_path / "later.safetensors"
    plain = {**json.loads(card.to_json()), "format": 2}
    save_file(tensors, path, {"zoo": json.dumps(plain)})
    with pytest.raises(zoo.WeightsError, match="format 2"):
        modelfile.read_model(path)
    save_file(tensors, path, {"zoo": json.dumps({"format": 1})})
    with pytest.raises(zoo.WeightsError, match="damaged description"):
        modelfile.read_model(path)


def test_read_tensors_verifies_digest(tmp_path, tensors, card):
    path = tmp_path / "model.safetensors"
    digest = modelfile.write_model(path, tensors, card)
    assert modelfile.read_tensors(path, digest[:8]).sha256 == digest
    with pytest.raises(zoo.WeightsError, match="not the file that was published"):
        modelfile.read_tensors(path, "00" + digest[2:])


def test_read_checkpoint_unwraps_state_dict(tmp_path, tensors):
    path = tmp_path / "old.pth"
    torch.save({"state_dict": tensors, "epoch": 3}, path)
    assert set(modelfile.read_checkpoint(path)) == {"a", "b"}
    torch.save(tensors, path, _use_new_zipfile_serialization=False)
    assert set(modelfile.read_checkpoint(path)) == {"a", "b"}
    torch.save([1, 2], path)
    with pytest.raises(zoo.WeightsError, match="something other than a state dict"):
        modelfile.read_checkpoint(path)
    path.write_bytes(b"torn")
    with pytest.raises(zoo.WeightsError, match="without running code"):
        modelfile.read_checkpoint(path)
