"""Published weights: downloaded from a real server, checked, converted once, cached."""

import hashlib
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save

import zoo
from tests.published_weights import CONTENT, checkpoint, leafnet
from zoo.files import cache_dir
from zoo.modelfile import ModelCard, write_model
from zoo.models.base_weights import resolve_base
from zoo.models.build import build as build_on_weights
from zoo.models.weight_sources import locate
from zoo.models.weights import fetch


@pytest.fixture
def server(file_server):
    """A checkpoint on a server: its address, the first digits of its digest, what was asked."""
    return (*file_server(checkpoint()), file_server.asked)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_fetch_downloads_checks_converts_and_caches(server):
    address, digits, asked = server
    backbone = leafnet(url=f"{address}/good-{digits}.pth")
    assert locate(backbone, backbone.weights[0]).kind == "download"
    got = fetch(backbone, backbone.weights[0])
    assert got.sha256.startswith(digits)
    assert all(torch.equal(got.tensors[name], CONTENT[name]) for name in CONTENT)
    assert locate(backbone, backbone.weights[0]).kind == "cached"
    again = fetch(backbone, backbone.weights[0])
    assert again.sha256 == got.sha256
    assert len(asked) == 1
    cached = sorted(path.suffix for path in (cache_dir() / "weights").iterdir())
    assert cached == [".json", ".safetensors"]
    assert list((cache_dir() / "downloads").iterdir()) == []


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("wrong", "not the file that was published"),
        ("half", "ended after|broke off|cannot download"),
        ("missing", "answered 404"),
    ],
)
def test_fetch_invalid_download_raises_and_caches_nothing(server, path, message):
    address, digits, _ = server
    backbone = leafnet(url=f"{address}/{path}-{digits}.pth")
    with pytest.raises(zoo.WeightsError, match=message):
        fetch(backbone, backbone.weights[0])
    assert not (cache_dir() / "weights").exists()
    assert list((cache_dir() / "downloads").iterdir()) == []


def test_damaged_cache_is_replaced(server):
    address, digits, asked = server
    backbone = leafnet(url=f"{address}/good-{digits}.pth")
    fetch(backbone, backbone.weights[0])
    (cached,) = (cache_dir() / "weights").glob("*.safetensors")
    data = bytearray(cached.read_bytes())
    data[-1] ^= 1
    cached.write_bytes(bytes(data))
    got = fetch(backbone, backbone.weights[0])
    assert all(torch.equal(got.tensors[name], CONTENT[name]) for name in CONTENT)
    assert len(asked) == 2


def test_fetch_unreachable_server_raises(server):
    backbone = leafnet(url="http://127.0.0.1:9/good-01234567.pth")
    with pytest.raises(zoo.WeightsError, match="cannot download"):
        fetch(backbone, backbone.weights[0])


def test_fetch_other_url_schemes_raise(tmp_path):
    (tmp_path / "x.pth").write_bytes(checkpoint())
    backbone = leafnet(url=f"file://{tmp_path}/x.pth")
    with pytest.raises(zoo.WeightsError, match="not an http"):
        fetch(backbone, backbone.weights[0])


def test_missing_package_raises():
    backbone = leafnet(file="no_such_package:weights.pth")
    with pytest.raises(zoo.WeightsError, match="no_such_package"):
        fetch(backbone, backbone.weights[0])


def test_dry_run_of_missing_file_raises(tmp_path):
    backbone = leafnet(file=str(tmp_path / "leaf.pth"))  # to be converted, which a dry run skips
    with pytest.raises(zoo.WeightsError, match=r"leaf\.pth does not exist"):
        build_on_weights(backbone, resolve_base(backbone, "auto"), dry_run=True)
    assert resolve_base(backbone, "auto").reason.endswith("leaf.pth does not exist")


def test_fetch_weights_at_path(tmp_path):
    path = tmp_path / "leaf.safetensors"
    digest = hashlib.sha256(save(CONTENT)).hexdigest()
    backbone = leafnet(file=str(path), sha256=digest)
    assert locate(backbone, backbone.weights[0]).kind == "missing"
    with pytest.raises(zoo.WeightsError, match=r"leaf\.safetensors does not exist"):
        fetch(backbone, backbone.weights[0])
    path.write_bytes(save(CONTENT))
    got = fetch(backbone, backbone.weights[0])
    assert got.sha256 == digest
    assert all(torch.equal(got.tensors[name], CONTENT[name]) for name in CONTENT)
    path.write_bytes(save({"0.weight": torch.zeros(3, 4)}))
    with pytest.raises(zoo.WeightsError, match="correct the sha256"):
        fetch(backbone, backbone.weights[0])


def test_checkpoint_at_path_is_converted_once(tmp_path):
    path = tmp_path / "leaf.pth"
    path.write_bytes(checkpoint())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    backbone = leafnet(file=str(path), sha256=digest)
    for _ in range(2):
        got = fetch(backbone, backbone.weights[0])
        assert all(torch.equal(got.tensors[name], CONTENT[name]) for name in CONTENT)
    path.unlink()
    other = leafnet(file=str(path), sha256="0" * 64)
    with pytest.raises(zoo.WeightsError, match="does not exist"):
        fetch(other, other.weights[0])


def test_derived_backbone_shares_converted_weights_of_base(tmp_path, monkeypatch, server):
    address, digits, asked = server
    (tmp_path / "named_convert.py").write_text(
        "from zoo.modelfile import read_checkpoint\n"
        "def convert(path, backbone, weights):\n"
        "    assert backbone.name == 'leafnet'\n"
        "    return read_checkpoint(path)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    base = leafnet(url=f"{address}/good-{digits}.pth", convert="named_convert:convert")
    for backbone in (replace(base, name="oak", extends=base), base):
        assert len(fetch(backbone, backbone.weights[0]).tensors) == 2
    assert len(asked) == 1


@pytest.fixture
def model_file(tmp_path):
    """Return a function that registers a model file as weights with given fields."""
    path = tmp_path / "model.safetensors"
    heads, preprocess = (zoo.Head("0"),), zoo.Preprocess(size=32)
    card = ModelCard(
        "a/leafnet",
        {"wide": True},
        heads,
        "image-classification",
        {"classes": ["x", "y", "z"]},
        preprocess,
        "fp32",
    )
    write_model(path, CONTENT, card)

    def register(**fields):
        stated = {"num_classes": 3, "kwargs": {"wide": True}, **fields}
        return replace(
            leafnet(file=str(path)), weights=(zoo.Weights("own", file=str(path), **stated),)
        )

    return register


def test_fetch_published_model_file(model_file, caplog):
    for fields in ({}, {"classes": ("x", "y", "z")}):
        backbone = model_file(**fields)
        assert len(fetch(backbone, backbone.weights[0]).tensors) == 2
    assert not caplog.records
    backbone = model_file(preprocess=zoo.Preprocess(size=64))
    fetch(backbone, backbone.weights[0])
    assert "another preprocess" in caplog.text


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"num_classes": 9}, zoo.BrokenBackbone, "has 3 classes, and is registered with 9"),
        ({"classes": ("x", "z", "y")}, zoo.BrokenBackbone, "order; its own are x, y, z"),
        ({"kwargs": {}}, zoo.WeightsError, "updated by those of these weights, must"),
    ],
)
def test_model_file_with_mismatched_registration_raises(model_file, fields, error, message):
    backbone = model_file(**fields)
    with pytest.raises(error, match=message):
        fetch(backbone, backbone.weights[0])


@pytest.mark.slow
def test_installed_weights_are_converted_once():
    backbone = zoo.get("lite0")
    assert locate(backbone, backbone.weights[0]).kind == "installed"
    first = fetch(backbone, backbone.weights[0])
    assert len(first.tensors) == 296
    (record,) = (cache_dir() / "weights").glob("*.json")
    noted = json.loads(record.read_bytes())
    assert noted["source"] == backbone.weights[0].sha256
    changed = record.stat().st_mtime_ns
    again = fetch(backbone, backbone.weights[0])
    assert all(torch.equal(again.tensors[n], t) for n, t in first.tensors.items())
    assert record.stat().st_mtime_ns == changed


def test_unreachable_hub_raises_at_once(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid")
    backbone = leafnet(hub="nobody/nothing")
    with pytest.raises(zoo.WeightsError, match=r"cannot reach hub\.invalid"):
        fetch(backbone, backbone.weights[0])


def test_unwritable_cache_warns(monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "leafpack").mkdir()
    (tmp_path / "leafpack/__init__.py").touch()
    (tmp_path / "leafpack/leaf.pth").write_bytes(checkpoint())
    monkeypatch.syspath_prepend(str(tmp_path))
    backbone = leafnet(file="leafpack:leaf.pth")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert fetch(backbone, backbone.weights[0]).tensors.keys() == CONTENT.keys()
    assert "not cached" in caplog.text


def test_failing_converter_raises_broken_backbone(tmp_path, monkeypatch, server):
    address, digits, _ = server
    (tmp_path / "odd_convert.py").write_text(
        "def fails(path, backbone, weights): raise KeyError('x')\n"
        "def nothing(path, backbone, weights): return None\n"
        "def junk(path, backbone, weights): return {'a': 3}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in ("fails", "nothing", "junk"):
        backbone = leafnet(url=f"{address}/good-{digits}.pth", convert=f"odd_convert:{name}")
        with pytest.raises(zoo.BrokenBackbone, match="conversion"):
            fetch(backbone, backbone.weights[0])
