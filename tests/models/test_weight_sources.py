"""Copies of published weights on this machine: torch's cache, the hub's, located without torch."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import zoo
from tests.published_weights import CONTENT, checkpoint, leafnet
from zoo.files import cache_dir
from zoo.models.weight_sources import hub_cache, locate, torch_checkpoints
from zoo.models.weights import fetch
from zoo.registry.registry import load_registry

DATA = checkpoint()
SHA256 = hashlib.sha256(DATA).hexdigest()
NAME = f"leaf-{SHA256[:8]}.pth"
# Port 9 refuses connections: whatever is loaded does not come from a network.
NOWHERE = f"http://127.0.0.1:9/{NAME}"


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


@pytest.fixture
def weights_dir(tmp_path, monkeypatch) -> Path:
    folder = tmp_path / "carried"
    folder.mkdir()
    monkeypatch.setenv("ZOO_WEIGHTS_DIR", str(folder))
    return folder


@pytest.mark.parametrize(
    ("source", "path"),
    [
        ({"url": NOWHERE}, NAME),
        ({"hub": "lab/leaf"}, "lab/leaf/pytorch_model.bin"),
        ({"hub": "lab/leaf:weights/leaf.pth"}, "lab/leaf/weights/leaf.pth"),
    ],
    ids=["url", "hub", "hub-file"],
)
def test_weights_dir_replaces_download(weights_dir, source, path):
    (weights_dir / path).parent.mkdir(parents=True, exist_ok=True)
    (weights_dir / path).write_bytes(DATA)
    before = snapshot(weights_dir)
    backbone = leafnet(**source)
    location = locate(backbone, backbone.weights[0])
    assert (location.kind, location.text) == ("folder", f"in {weights_dir}")
    got = fetch(backbone, backbone.weights[0])
    assert (got.sha256, is_content(got)) == (SHA256, True)
    assert snapshot(weights_dir) == before


@pytest.mark.parametrize("source", [{"url": NOWHERE}, {"hub": "lab/leaf:leaf.pth"}])
def test_damaged_file_in_weights_dir_is_refused(weights_dir, source, caplog, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    backbone = leafnet(**source)
    path = weights_dir / NAME if "url" in source else weights_dir / "lab" / "leaf" / "leaf.pth"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(DATA[::-1])
    # The digest of a file of the hub is known only from the list that `zoo fetch` writes.
    (weights_dir / "SHA256SUMS").write_text(f"{SHA256}  lab/leaf/leaf.pth\n")
    with pytest.raises(zoo.WeightsError, match="cannot download"):
        fetch(backbone, backbone.weights[0])
    assert "is not the file that was published" in caplog.text
    path.write_bytes(DATA)
    assert is_content(fetch(backbone, backbone.weights[0]))


def test_failed_download_names_weights_dir(weights_dir, monkeypatch):
    backbone = leafnet(url=NOWHERE)
    with pytest.raises(zoo.WeightsError) as caught:
        fetch(backbone, backbone.weights[0])
    assert f"{weights_dir} does not contain {NAME}" in caught.value.message
    assert "`zoo fetch leafnet --to DIR`" in caught.value.hint
    monkeypatch.setenv("ZOO_WEIGHTS_DIR", str(weights_dir / "missing"))
    with pytest.raises(zoo.WeightsError, match="missing is not a folder"):
        fetch(backbone, backbone.weights[0])


def test_weights_dir_of_registry_file(tmp_path, monkeypatch):
    file = tmp_path / "site" / "registry.toml"
    (file.parent / "weights").mkdir(parents=True)
    file.write_text('schema = 1\nweights_dir = "weights"\n')
    backbone = load_registry(file=file).get("torchvision/mobilenet_v2")
    name = Path(backbone.weights[0].url).name
    (file.parent / "weights" / name).write_bytes(b"not opened")
    location = locate(backbone, backbone.weights[0])
    assert (location.kind, location.path) == ("folder", file.parent / "weights" / name)
    assert zoo.get("torchvision/mobilenet_v2") == backbone
    monkeypatch.setenv("ZOO_WEIGHTS_DIR", str(tmp_path))
    assert locate(backbone, backbone.weights[0]).kind == "download"


def test_show_reports_location_of_weights(weights_dir, cli):
    for weights in zoo.get("torchvision/mobilenet_v2").weights[:1]:
        (weights_dir / Path(weights.url).name).write_bytes(b"not opened")
    code, out, _ = cli("show", "torchvision/mobilenet_v2", "--json")
    default, first = json.loads(out)["weights"]
    assert (code, default["availability"]) == (0, "folder")
    assert Path(default["path"]).parent == weights_dir
    assert (first["tag"], first["availability"]) == ("IMAGENET1K_V1", "installed")
    table = cli("show", "torchvision/mobilenet_v2")[1]
    assert f"in {weights_dir}" in table
    assert "installed with plugin mobilenet_v2" in table
