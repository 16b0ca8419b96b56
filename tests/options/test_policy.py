"""Policies: parsing and text."""

import pytest

import zoo
from zoo.options import Policy


@pytest.mark.parametrize(
    ("text", "policy"),
    [
        ("head", Policy("head")),
        (" all ", Policy("all")),
        ("stages:2", Policy("stages", stages=2)),
        ("stages:012", Policy("stages", stages=12)),
        ("layer4,fc", Policy("modules", patterns=("layer4", "fc"))),
        ("classifier[6], features.*", Policy("modules", patterns=("classifier.6", "features.*"))),
    ],
)
def test_text_round_trip(text, policy):
    assert Policy.parse(text) == policy
    assert Policy.parse(str(policy)) == policy


@pytest.mark.parametrize("text", ["head", "all", "stages:3", "layer4,fc", "blocks.?.attn"])
def test_canonical_text_is_unchanged(text):
    assert str(Policy.parse(text)) == text


@pytest.mark.parametrize("text", ["stages:0", "stages:x", "stage:2", "", ",", "head:2"])
def test_parse_malformed_text_is_refused(text):
    with pytest.raises(zoo.UsageError, match="not a policy"):
        Policy.parse(text)
