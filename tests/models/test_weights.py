"""Published weights: fetched from a real server, checked, converted once, read from the cache."""

import io
import json

import pytest
import torch
from torch import nn

import zoo
from zoo.files import cache_dir
from zoo.models.weights import fetch, where

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
    assert where(backbone, backbone.weights[0]) == "download"
    got = fetch(backbone, backbone.weights[0])
    assert got.sha256.startswith(digits)
    assert all(torch.equal(got.tensors[name], CONTENT[name]) for name in CONTENT)
    assert where(backbone, backbone.weights[0]) == "cached"
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


def test_installed_weights_are_converted_once():
    backbone = zoo.get("lite0")
    assert where(backbone, backbone.weights[0]) == "installed"
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
    backbone = zoo.get("lite0")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert len(fetch(backbone, backbone.weights[0]).tensors) == 296
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
