"""What was measured of networks is what the libraries that are installed build."""

import pytest

import zoo
from zoo.builtin.measure import measure
from zoo.builtin.measured import read_measured, with_widths

SAMPLE = [
    "torchvision/googlenet",  # its auxiliary heads count
    "torchvision/squeezenet1_1",
    "timm/crossvit_tiny_240",  # several heads, several widths
    "timm/test_vit",
    "timm/vit_small_patch16_dinov3",  # an Identity, whose width shows as the network runs
    "timm/qwen3_vit_88m_enc",  # no head
]


@pytest.mark.parametrize("name", SAMPLE)
def test_it_is_as_it_was_measured(name):
    backbone = zoo.get(name)
    found = measure(backbone)
    assert found == read_measured(backbone.source)[backbone.name]
    assert backbone.params == found["params"] > 0
    assert [head.in_features for head in backbone.heads] == found["in_features"]


@pytest.mark.parametrize("source", ["torchvision", "timm"])
def test_every_backbone_was_measured(source):
    for backbone in zoo.list_backbones(source=source):
        assert backbone.params, backbone.id
        assert all(head.in_features for head in backbone.heads), backbone.id


def test_a_backbone_that_was_not_measured_is_described_without():
    heads = (zoo.Head("fc"),)
    assert with_widths(heads, {}) == heads
    other_version = {"params": 5, "in_features": [16, 16]}
    assert with_widths(heads, other_version) == heads
