"""Which backbone suits: candidates judged by the probe, on images that it did not see."""

import json

import pytest
import torch

import zoo
from zoo.inference.rank import candidates, neighbours_agree
from zoo.registry.registry import load_registry


@pytest.fixture(autouse=True)
def alone(own_cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_better_features_come_first_and_what_cannot_be_tried_last(cli, pictures):
    asked = ["rank", "--data", str(pictures), "lite0", "timm/resnet10t", "--device", "cpu"]
    done = cli(*asked, "--json")
    assert done[0] == 0, done[2]
    best, unknown = json.loads(done[1])
    assert best["backbone"] == "efficientnet_lite/lite0"
    assert best["accuracy"] > 0.8
    assert 0 <= best["spread"] < 0.5
    assert best["knn"] > 0.6
    assert best["backbone_forwards"] == 48
    assert best["params"] == zoo.get("lite0").params
    assert unknown["accuracy"] is None
    assert "cannot" in unknown["error"]
    again = cli(*asked)
    assert again[1].splitlines()[1].startswith("efficientnet_lite/lite0")
    (row,) = [each for each in json.loads(cli(*asked, "--json")[1]) if each["accuracy"]]
    assert row["backbone_forwards"] == 0
    assert row["accuracy"] == best["accuracy"]


def test_candidates_without_a_pattern_are_of_every_kind():
    registry = load_registry()
    found = candidates(registry, (), 30_000_000, 20)
    assert len(found) == 20
    assert found[0].source == "efficientnet_lite"  # its weights are at hand
    assert all(backbone.params <= 30_000_000 for backbone in found)
    assert len({backbone.name[:4] for backbone in found}) > 10
    few = candidates(registry, ("resnet1*",), None, 3)
    assert len(few) == 3
    with pytest.raises(zoo.UsageError, match="no pretrained backbone of at most 10 "):
        candidates(registry, ("resnet*",), 10, 3)


def test_neighbours_are_others():
    # Two points of each class together, one class to a corner: all right but for the lonely one.
    features = torch.tensor([[5.0, 0.0], [5.1, 0.0], [0.0, 5.0], [0.0, 5.1], [-5.0, -5.0]])
    assert neighbours_agree(features, torch.tensor([0, 0, 1, 1, 2]), 3) <= 0.8
    many = torch.cat([torch.randn(40, 3) + 20, torch.randn(40, 3) - 20])
    labels = torch.arange(2).repeat_interleave(40)
    assert neighbours_agree(many, labels, 2) == 1.0
    torch.manual_seed(0)
    assert 0.3 < neighbours_agree(torch.randn(400, 8), torch.randint(2, (400,)), 2) < 0.7


def test_sizes_are_written_as_people_write_them(cli, pictures):
    done = cli("rank", "--data", str(pictures), "--max-params", "30X", "lite0")
    assert done[0] == 2
    assert "30M" in done[2]
