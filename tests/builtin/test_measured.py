"""Committed measurements equal those of the installed libraries."""

import pytest

import zoo
from zoo.builtin.measure import measure
from zoo.builtin.measured import read_measured, with_widths

SAMPLE = [
    "torchvision/googlenet",  # auxiliary heads are counted
    "torchvision/squeezenet1_1",
    "timm/crossvit_tiny_240",  # several heads, several widths
    "timm/test_vit",
    "timm/vit_small_patch16_dinov3",  # an Identity, whose width is known from a forward pass
    "timm/qwen3_vit_88m_enc",  # no head
]


@pytest.mark.parametrize("name", SAMPLE)
def test_measurements_match_installed_library(name):
    backbone = zoo.get(name)
    measured = measure(backbone)
    assert measured == read_measured(backbone.source)[backbone.name]
    assert backbone.params == measured["params"] > 0
    assert [head.in_features for head in backbone.heads] == measured["in_features"]


@pytest.mark.parametrize("source", ["torchvision", "timm"])
def test_every_backbone_was_measured(source):
    for backbone in zoo.list_backbones(source=source):
        assert backbone.params, backbone.id
        assert all(head.in_features for head in backbone.heads), backbone.id


def test_with_widths_ignores_missing_measurements():
    heads = (zoo.Head("fc"),)
    assert with_widths(heads, {}) == heads
    other_version = {"params": 5, "in_features": [16, 16]}
    assert with_widths(heads, other_version) == heads
