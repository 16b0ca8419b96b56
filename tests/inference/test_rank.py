"""`zoo rank`: candidates, cross-validated accuracy, nearest neighbours."""

import json
import random
import shutil

import pytest
import torch
from PIL import Image

import zoo
from zoo.builtin.measured import read_measured
from zoo.inference.rank import candidates, knn_accuracy
from zoo.registry.registry import load_registry
from zoo.spec import IMAGE_CLASSIFICATION


@pytest.fixture(autouse=True)
def alone(own_cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_rank_sorts_by_accuracy_with_failures_last(cli, image_folder):
    arguments = ["rank", "--data", str(image_folder), "lite0", "timm/resnet10t", "--device", "cpu"]
    done = cli(*arguments, "--json")
    assert done[0] == 0, done[2]
    best, unknown = json.loads(done[1])
    assert f"{image_folder.name}: chance is 33.3 %" in done[2]
    assert best["backbone"] == "efficientnet_lite/lite0"
    assert best["accuracy"] > 0.8
    assert 0 <= best["spread"] < 0.5
    assert best["knn"] > 0.6
    assert best["backbone_forwards"] == 48
    assert best["params"] == zoo.get("lite0").params
    assert (best["engine"], unknown["engine"]) == ("torch", None)
    assert unknown["accuracy"] is None
    assert "cannot" in unknown["error"]
    again = cli(*arguments)
    assert again[1].splitlines()[1].startswith("efficientnet_lite/lite0")
    (row,) = [each for each in json.loads(cli(*arguments, "--json")[1]) if each["accuracy"]]
    assert row["backbone_forwards"] == 0
    assert row["accuracy"] == best["accuracy"]


def test_rank_fails_if_every_candidate_fails(cli, image_folder):
    code, out, err = cli("rank", "--data", str(image_folder), "resnet10t", "--json")
    assert code == zoo.ExitCode.WEIGHTS
    assert [each["accuracy"] for each in json.loads(out)] == [None]
    failure = json.loads(err.splitlines()[-1])
    assert failure["message"].startswith("cannot reach huggingface.co")


def test_rank_with_unreadable_image_exits_with_data(cli, image_folder, tmp_path):
    folder = shutil.copytree(image_folder, tmp_path / "photos")
    broken = next(folder.rglob("*.jpg"))
    broken.write_bytes(b"no image")
    code, out, err = cli("rank", "--data", str(folder), "lite0", "lite1")
    assert (code, out) == (zoo.ExitCode.DATA, "")
    assert err.count("zoo: error: cannot read") == err.count(broken.name) == 1
    assert "--bad-images skip" in err
    skipping = ("--data", str(folder), "--bad-images", "skip")
    line = f"skipped: not an image that zoo reads (1 image): {broken}"
    rank = cli("rank", *skipping, "lite0", "timm/resnet10t")
    assert (rank[0], rank[2].count(line)) == (0, 1)
    out = str(tmp_path / "f.npy")
    assert line in cli("embed", "lite0", *skipping, "--out", out)[2]


def test_candidates_without_pattern_cover_architectures():
    for source in ("torchvision", "timm"):
        if not read_measured(source):
            pytest.skip(f"the sizes of this {source} were not measured")
    registry = load_registry()
    backbones = candidates(registry, (), IMAGE_CLASSIFICATION, 30_000_000, 20)
    assert len(backbones) == 20
    assert backbones[0].source == "efficientnet_lite"  # its weights are installed
    assert all(backbone.params <= 30_000_000 for backbone in backbones)
    assert len({backbone.name[:4] for backbone in backbones}) > 10
    few = candidates(registry, ("resnet1*",), IMAGE_CLASSIFICATION, None, 3)
    assert len(few) == 3
    with pytest.raises(zoo.UsageError, match="no pretrained backbone of at most 10 "):
        candidates(registry, ("resnet*",), IMAGE_CLASSIFICATION, 10, 3)


def test_candidates_of_unknown_size_are_reported(install):
    install(
        "leaf",
        """
        import zoo

        @zoo.hookimpl
        def zoo_register_backbones():
            weights = (zoo.Weights("w", url="https://a.b/c"),)
            yield zoo.Backbone("leafnet", "torch.nn:Identity", (zoo.Head("fc"),),
                               zoo.Preprocess(size=32), weights=weights)
        """,
    )
    notices: list[str] = []
    patterns = ("leaf/*", "lite0")
    found = candidates(load_registry(), patterns, IMAGE_CLASSIFICATION, 10**7, 3, notices.append)
    assert [backbone.id for backbone in found] == ["efficientnet_lite/lite0"]
    assert notices == ["left out, of unknown size: 1; name them, without --max-params"]
    found = candidates(load_registry(), patterns, IMAGE_CLASSIFICATION, None, 3, notices.append)
    assert len(found) == 2
    assert len(notices) == 1


def test_knn_accuracy_is_leave_one_out():
    # Two points of two classes close together, and a single one of a third, which is wrong.
    features = torch.tensor([[5.0, 0.0], [5.1, 0.0], [0.0, 5.0], [0.0, 5.1], [-5.0, -5.0]])
    assert knn_accuracy(features, torch.tensor([0, 0, 1, 1, 2]), 3) <= 0.8
    many = torch.cat([torch.randn(40, 3) + 20, torch.randn(40, 3) - 20])
    labels = torch.arange(2).repeat_interleave(40)
    assert knn_accuracy(many, labels, 2) == 1.0
    torch.manual_seed(0)
    assert 0.3 < knn_accuracy(torch.randn(400, 8), torch.randint(2, (400,)), 2) < 0.7


def test_invalid_max_params_is_refused(cli, image_folder):
    done = cli("rank", "--data", str(image_folder), "--max-params", "30X", "lite0")
    assert done[0] == 2
    assert "30M" in done[2]


def test_knn_accuracy_ignores_images_of_the_same_group():
    generator = torch.Generator().manual_seed(0)
    groups = torch.arange(30).repeat_interleave(4)
    features = torch.randn(30, 50, generator=generator)[groups]
    labels = (torch.arange(30) % 3)[groups]
    assert knn_accuracy(features, labels, 3) > 0.8
    assert knn_accuracy(features, labels, 3, groups) < 0.5
    # Without another group there is no neighbour to vote, not even for the first class.
    assert knn_accuracy(features, labels, 3, torch.zeros_like(groups)) == 0.0
    first = torch.eye(2).repeat(4, 1)
    assert knn_accuracy(first, torch.arange(8) % 2, 2, torch.arange(8) // 2) == 1.0


def test_single_images_of_classes_cannot_be_ranked_on(cli, image_folder, tmp_path):
    for folder in (image_folder / "train").iterdir():
        (tmp_path / "photos" / folder.name).mkdir(parents=True)
        first, *_ = sorted(folder.iterdir())
        shutil.copyfile(first, tmp_path / "photos" / folder.name / "whole.jpg")
        (tmp_path / "photos" / folder.name / "bad.jpg").write_bytes(b"no image")
    given = ("--data", tmp_path / "photos", "--device", "cpu", "--bad-images", "skip")
    code, _, err = cli("rank", "lite0", *given)
    assert code == 3
    assert "photos cannot be ranked on: too few images for cross-validation" in err


@pytest.mark.slow
def test_rank_scores_groups_it_has_not_seen(cli, tmp_path):
    """Images of a patient are equal, and patients have random classes: only leaks are learned."""
    draw = random.Random(0)
    for patient in range(12):
        image = Image.frombytes("RGB", (24, 24), draw.randbytes(24 * 24 * 3))
        folder = tmp_path / "photos" / "ab"[patient % 2]
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(8):  # 7 of an image's ten neighbours equal it
            image.save(folder / f"p{patient}_{number}.png")
    given = ("rank", "lite0", "--data", tmp_path / "photos", "--device", "cpu", "--json")
    (leaking,), (grouped,) = (
        json.loads(cli(*given, *groups)[1]) for groups in ((), ("--group-by", r"(p\d+)_"))
    )
    assert leaking["accuracy"] == leaking["knn"] == 1.0
    assert grouped["accuracy"] < 0.9
    assert grouped["knn"] < 0.9
