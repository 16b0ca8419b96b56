"""Committed measurements equal those of the installed libraries, and are used of no others."""

import json

import pytest
import timm
import torchvision

import zoo
from zoo.builtin.measure import measure, merge, render
from zoo.builtin.measured import installed_version, measured_file, read_measured, with_widths
from zoo.builtin.torchvision import zoo_register_backbones

SAMPLE = [
    "torchvision/googlenet",  # auxiliary heads are counted
    "torchvision/squeezenet1_1",
    "timm/crossvit_tiny_240",  # several heads, several widths
    "timm/test_vit",
    "timm/vit_small_patch16_dinov3",  # an Identity, whose width is known from a forward pass
    "timm/qwen3_vit_88m_enc",  # no head
]


def require_measured(source):
    if not read_measured(source):
        pytest.skip(f"{source} {installed_version(source)} was not measured")


@pytest.mark.parametrize("name", SAMPLE)
def test_measurements_match_installed_library(name):
    require_measured(name.partition("/")[0])
    if not zoo.list_backbones(name):
        pytest.skip("the installed version does not have it")
    backbone = zoo.get(name)
    measured = measure(backbone)
    assert measured == read_measured(backbone.source)[backbone.name]
    assert backbone.params == measured["params"] > 0
    assert [head.in_features for head in backbone.heads] == measured["in_features"]


@pytest.mark.parametrize("source", ["torchvision", "timm"])
def test_every_backbone_was_measured(source):
    require_measured(source)
    for backbone in zoo.list_backbones(source=source):
        assert backbone.params, backbone.id
        assert all(head.in_features for head in backbone.heads), backbone.id


def test_with_widths_of_unmeasured_heads_unchanged():
    heads = (zoo.Head("fc"),)
    assert with_widths(heads, {}) == heads


def test_installed_version_omits_build():
    assert timm.__version__ == installed_version("timm")
    assert torchvision.__version__.partition("+")[0] == installed_version("torchvision")
    assert installed_version("no-such-library") is None


@pytest.mark.parametrize("source", ["torchvision", "timm"])
def test_measurements_of_another_version_are_unused(source, tmp_path, monkeypatch):
    info = tmp_path / f"{source}-99.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {source}\nVersion: 99.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert installed_version(source) == "99.0"
    assert read_measured(source) == {}
    if source == "torchvision":
        described = list(zoo_register_backbones())
        assert {backbone.params for backbone in described} == {None}
        assert {head.in_features for backbone in described for head in backbone.heads} == {None}


def test_merge_adds_version_whose_backbones_agree():
    small, large = ({"params": n, "in_features": [n]} for n in (3, 5))
    recorded = {"versions": ["1.0.31"], "backbones": {"a": small, "c": large}}
    merged = merge(recorded, "1.0.4", {"a": small, "b": small})
    assert merged["versions"] == ["1.0.4", "1.0.31"]
    assert merged["backbones"] == {"a": small, "b": small, "c": large}
    assert merge(recorded, "1.0.4", {"a": large}) == {
        "versions": ["1.0.4"],
        "backbones": {"a": large},
    }


@pytest.mark.parametrize("source", ["torchvision", "timm"])
def test_measurements_are_stored_as_rendered(source):
    text = measured_file(source).read_text()
    assert render(json.loads(text)) == text
