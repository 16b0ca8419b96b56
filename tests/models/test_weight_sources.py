"""Copies of published weights on this machine: torch's cache, the hub's, located without torch."""

import hashlib
import io
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import zoo
from zoo.files import cache_dir
from zoo.models.weight_sources import hub_cache, locate, torch_checkpoints
from zoo.models.weights import fetch

CONTENT: dict[str, torch.Tensor] = {"0.weight": torch.randn(3, 4), "0.bias": torch.zeros(3)}


def checkpoint(content=CONTENT) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


DATA = checkpoint()
SHA256 = hashlib.sha256(DATA).hexdigest()
NAME = f"leaf-{SHA256[:8]}.pth"
# Port 9 refuses connections: whatever is loaded does not come from a network.
NOWHERE = f"http://127.0.0.1:9/{NAME}"


def build(weights=None):
    return nn.Sequential(nn.Linear(4, 3))


def leafnet(**source):
    return zoo.Backbone(
        name="leafnet",
        builder=f"{__name__}:build",
        heads=(zoo.Head("0"),),
        preprocess=zoo.Preprocess(size=32),
        weights=(zoo.Weights("one", num_classes=3, **source),),
    )


def is_content(file) -> bool:
    return all(torch.equal(file.tensors[name], CONTENT[name]) for name in CONTENT)


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path, own_cache) -> Path:
    """An empty `TORCH_HOME`; returns its folder of checkpoints."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    folder = tmp_path / "torch" / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    return folder


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_weights_in_torch_cache_are_converted_once(home):
    (home / NAME).write_bytes(DATA)
    before = snapshot(home)
    backbone = leafnet(url=NOWHERE)
    location = locate(backbone, backbone.weights[0])
    assert (location.kind, location.text, location.path) == ("torch", f"in {home}", home / NAME)
    got = fetch(backbone, backbone.weights[0])
    assert got.sha256 == SHA256
    assert is_content(got)
    assert snapshot(home) == before
    assert locate(backbone, backbone.weights[0]).kind == "cached"
    (home / NAME).unlink()
    assert is_content(fetch(backbone, backbone.weights[0]))


def test_wrong_file_in_torch_cache_is_skipped(home, file_server, caplog):
    address, digits = file_server(DATA)
    wrong = checkpoint({"0.weight": torch.ones(3, 4), "0.bias": torch.ones(3)})
    (home / f"good-{digits}.pth").write_bytes(wrong)
    backbone = leafnet(url=f"{address}/good-{digits}.pth")
    assert is_content(fetch(backbone, backbone.weights[0]))
    assert "is not the file that was published" in caplog.text
    assert file_server.asked == [f"/good-{digits}.pth"]
    assert (home / f"good-{digits}.pth").read_bytes() == wrong


def test_torch_cache_requires_published_digest(home):
    (home / "model.pth").write_bytes(DATA)
    unknown = leafnet(url="http://127.0.0.1:9/model.pth")
    assert locate(unknown, unknown.weights[0]).kind == "download"
    known = leafnet(url="http://127.0.0.1:9/model.pth", sha256=SHA256)
    assert is_content(fetch(known, known.weights[0]))


ENVIRONMENTS = [
    {},
    {"TORCH_HOME": "/a/torch"},
    {"TORCH_HOME": "~/torch", "XDG_CACHE_HOME": "/ignored"},
    {"XDG_CACHE_HOME": "/b/cache"},
    {"XDG_CACHE_HOME": "/b/cache", "HF_HOME": "~/hf"},
    {"HF_HOME": "/c", "HF_HUB_CACHE": "$HOME/hub"},
    {"HUGGINGFACE_HUB_CACHE": "/d"},
]
COMPARISON = f"""
import importlib, os, sys
from zoo.models.weight_sources import hub_cache, torch_checkpoints

def changed(variables):
    for name in [name for name in os.environ if name[:3] in ("TOR", "XDG", "HF_", "HUG")]:
        del os.environ[name]
    os.environ.update(variables)

def light(variables):
    changed(variables)
    return [str(torch_checkpoints()), str(hub_cache())]

def library(variables):
    changed(variables)
    importlib.reload(constants)
    return [torch.hub.get_dir() + "/checkpoints", constants.HF_HUB_CACHE]

ours = [light(variables) for variables in {ENVIRONMENTS}]
assert not {{"torch", "numpy", "huggingface_hub"}} & set(sys.modules)
import torch.hub
from huggingface_hub import constants
assert ours == [library(variables) for variables in {ENVIRONMENTS}], ours
print(len(set(map(tuple, ours))))
"""


def test_cache_folders_equal_those_of_libraries():
    done = subprocess.run(
        [sys.executable, "-c", COMPARISON], capture_output=True, text=True, timeout=120
    )
    assert (done.stdout.strip(), done.returncode) == (str(len(ENVIRONMENTS)), 0), done.stderr


def test_torch_set_dir_is_respected(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "_hub_dir", None)
    torch.hub.set_dir(str(tmp_path / "elsewhere"))
    assert torch_checkpoints() == tmp_path / "elsewhere" / "checkpoints"


def write_hub_cache(repository: str, name: str, data: bytes) -> Path:
    """Write a file as the hub's library does, and return its blob."""
    folder = hub_cache() / f"models--{repository.replace('/', '--')}"
    blob = folder / "blobs" / hashlib.sha256(data).hexdigest()
    link = folder / "snapshots" / "abc" / name
    for path in (blob, link, folder / "refs" / "main"):
        path.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(data)
    link.symlink_to(blob)
    (folder / "refs" / "main").write_text("abc")
    return blob


def test_weights_in_hub_cache_are_located_and_checked(monkeypatch, caplog):
    from huggingface_hub import constants, try_to_load_from_cache

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(hub_cache()))
    blob = write_hub_cache("lab/leaf", "pytorch_model.bin", DATA)
    backbone = leafnet(hub="lab/leaf")
    location = locate(backbone, backbone.weights[0])
    cached = try_to_load_from_cache("lab/leaf", "pytorch_model.bin", cache_dir=hub_cache())
    assert (location.kind, str(location.path), location.sha256) == ("hub", cached, SHA256)
    blob.write_bytes(DATA[:-1])
    with pytest.raises(zoo.WeightsError, match="is not the file that was published"):
        fetch(backbone, backbone.weights[0])
    assert "skipping weights one, in the cache of the Hugging Face hub" in caplog.text
    blob.write_bytes(DATA)
    assert is_content(fetch(backbone, backbone.weights[0]))
    assert not (cache_dir() / "downloads").exists()
