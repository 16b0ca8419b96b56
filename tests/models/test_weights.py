"""Published weights: fetched from a real server, checked, converted once, read from the cache."""

import hashlib
import io
import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save
from torch import nn

import zoo
from zoo.files import cache_dir
from zoo.modelfile import ModelCard, write_model
from zoo.models.weights import availability, fetch

CONTENT: dict[str, torch.Tensor] = {"0.weight": torch.randn(3, 4), "0.bias": torch.zeros(3)}


def checkpoint() -> bytes:
    buffer = io.BytesIO()
    torch.save(CONTENT, buffer)
    return buffer.getvalue()


@pytest.fixture
def server(file_server):
    """A checkpoint on a server: its address, the first digits of its digest, what was asked."""
    return (*file_server(checkpoint()), file_server.asked)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def leafnet(**place):
    return zoo.Backbone(
        name="leafnet",
        builder=f"{__name__}:build",
        heads=(zoo.Head("0"),),
        preprocess=zoo.Preprocess(size=32),
        weights=(zoo.Weights("one", num_classes=3, **place),),
    )


def build(weights=None):
    return nn.Sequential(nn.Linear(4, 3))


def test_a_good_file_is_downloaded_checked_converted_and_cached(server):
    address, digits, asked = server
    backbone = leafnet(url=f"{address}/good-{digits}.pth")
    assert availability(backbone, backbone.weights[0]) == "download"
    got = fetch(backbone, backbone.weights[0])
    assert got.sha256.startswith(digits)
    assert all(torch.equal(got.tensors[name], CONTENT[name]) for name in CONTENT)
    assert availability(backbone, backbone.weights[0]) == "cached"
    again = fetch(backbone, backbone.weights[0])
    assert again.sha256 == got.sha256
    assert len(asked) == 1
    kept = sorted(path.suffix for path in (cache_dir() / "weights").iterdir())
    assert kept == [".json", ".safetensors"]
    assert list((cache_dir() / "downloads").iterdir()) == []


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("wrong", "not the file that was published"),
        ("half", "ended after|broke off|cannot download"),
        ("missing", "answered 404"),
    ],
)
def test_what_is_wrong_is_refused_and_nothing_is_kept(server, path, said):
    address, digits, _ = server
    backbone = leafnet(url=f"{address}/{path}-{digits}.pth")
    with pytest.raises(zoo.WeightsError, match=said):
        fetch(backbone, backbone.weights[0])
    assert not (cache_dir() / "weights").exists()
    assert list((cache_dir() / "downloads").iterdir()) == []


def test_a_damaged_cache_is_noticed_and_made_again(server):
    address, digits, asked = server
    backbone = leafnet(url=f"{address}/good-{digits}.pth")
    fetch(backbone, backbone.weights[0])
    (kept,) = (cache_dir() / "weights").glob("*.safetensors")
    data = bytearray(kept.read_bytes())
    data[-1] ^= 1
    kept.write_bytes(bytes(data))
    got = fetch(backbone, backbone.weights[0])
    assert all(torch.equal(got.tensors[name], CONTENT[name]) for name in CONTENT)
    assert len(asked) == 2


def test_nobody_there(server):
    backbone = leafnet(url="http://127.0.0.1:9/good-01234567.pth")
    with pytest.raises(zoo.WeightsError, match="cannot download"):
        fetch(backbone, backbone.weights[0])


def test_other_schemes_are_refused(tmp_path):
    (tmp_path / "x.pth").write_bytes(checkpoint())
    backbone = leafnet(url=f"file://{tmp_path}/x.pth")
    with pytest.raises(zoo.WeightsError, match="not an http"):
        fetch(backbone, backbone.weights[0])


def test_a_missing_package_is_named():
    backbone = leafnet(file="no_such_package:weights.pth")
    with pytest.raises(zoo.WeightsError, match="no_such_package"):
        fetch(backbone, backbone.weights[0])


def test_weights_at_a_path(tmp_path):
    path = tmp_path / "leaf.safetensors"
    digest = hashlib.sha256(save(CONTENT)).hexdigest()
    backbone = leafnet(file=str(path), sha256=digest)
    assert availability(backbone, backbone.weights[0]) == "installed"
    with pytest.raises(zoo.WeightsError, match=r"leaf\.safetensors does not exist"):
        fetch(backbone, backbone.weights[0])
    path.write_bytes(save(CONTENT))
    got = fetch(backbone, backbone.weights[0])
    assert got.sha256 == digest
    assert all(torch.equal(got.tensors[name], CONTENT[name]) for name in CONTENT)
    path.write_bytes(save({"0.weight": torch.zeros(3, 4)}))
    with pytest.raises(zoo.WeightsError, match="correct the sha256"):
        fetch(backbone, backbone.weights[0])


def test_a_checkpoint_at_a_path_is_converted_once(tmp_path):
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


def test_what_is_derived_shares_what_was_converted_for_its_base(tmp_path, monkeypatch, server):
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
    """A model file of zoo's, registered as weights with whatever is said of them."""
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

    def register(**said):
        stated = {"num_classes": 3, "kwargs": {"wide": True}, **said}
        return replace(
            leafnet(file=str(path)), weights=(zoo.Weights("own", file=str(path), **stated),)
        )

    return register


def test_a_model_file_may_be_published(model_file, caplog):
    for said in ({}, {"classes": ("x", "y", "z")}):
        backbone = model_file(**said)
        assert len(fetch(backbone, backbone.weights[0]).tensors) == 2
    assert not caplog.records
    backbone = model_file(preprocess=zoo.Preprocess(size=64))
    fetch(backbone, backbone.weights[0])
    assert "another preprocess" in caplog.text


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({"num_classes": 1000}, "has 3 classes, and is registered with 1000"),
        ({"classes": ("x", "z", "y")}, "in another order; its own are x, y, z"),
        ({"kwargs": {}}, "kwargs of these weights, laid over those of the backbone, must"),
    ],
)
def test_a_model_file_registered_as_something_else_is_refused(model_file, said, why):
    backbone = model_file(**said)
    with pytest.raises(zoo.WeightsError, match=why):
        fetch(backbone, backbone.weights[0])


def test_installed_weights_are_converted_once():
    backbone = zoo.get("lite0")
    assert availability(backbone, backbone.weights[0]) == "installed"
    first = fetch(backbone, backbone.weights[0])
    assert len(first.tensors) == 296
    (record,) = (cache_dir() / "weights").glob("*.json")
    noted = json.loads(record.read_bytes())
    assert noted["source"] == backbone.weights[0].sha256
    changed = record.stat().st_mtime_ns
    again = fetch(backbone, backbone.weights[0])
    assert all(torch.equal(again.tensors[n], t) for n, t in first.tensors.items())
    assert record.stat().st_mtime_ns == changed


def test_a_hub_that_cannot_be_reached_is_said_at_once(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.invalid")
    backbone = leafnet(hub="nobody/nothing")
    with pytest.raises(zoo.WeightsError, match=r"cannot reach hub\.invalid"):
        fetch(backbone, backbone.weights[0])


def test_a_cache_that_cannot_be_written_is_survived(monkeypatch, tmp_path, caplog):
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "leafpack").mkdir()
    (tmp_path / "leafpack/__init__.py").touch()
    (tmp_path / "leafpack/leaf.pth").write_bytes(checkpoint())
    monkeypatch.syspath_prepend(str(tmp_path))
    backbone = leafnet(file="leafpack:leaf.pth")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert fetch(backbone, backbone.weights[0]).tensors.keys() == CONTENT.keys()
    assert "not kept" in caplog.text


def test_a_converter_that_fails_is_said(tmp_path, monkeypatch, server):
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
