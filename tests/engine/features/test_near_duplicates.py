"""Images that look alike, by features."""

import shutil
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from sklearn.metrics.pairwise import cosine_similarity

import zoo
from zoo.engine.features.near_duplicates import near_duplicates


def features(rows, views=1):
    return SimpleNamespace(loaded={"fc": rows}, views=views)


def test_near_duplicates_are_similar_centred_features():
    generator = torch.Generator().manual_seed(0)
    train = torch.rand(40, 16, generator=generator) + 5.0
    other = torch.cat(
        [train[7:8] + 0.01, torch.rand(20, 16, generator=generator) + 5.0, train[3:4]]
    )
    found = near_duplicates(features(train), features(other), "fc")
    mean = train.mean(dim=0)
    expected = torch.from_numpy(cosine_similarity(other - mean, train - mean))
    assert [pair[:2] for pair in found] == [(21, 3), (0, 7)]
    assert [pair[2] for pair in found] == pytest.approx(
        [float(expected[row, nearest]) for row, nearest, _ in found], abs=1e-5
    )
    assert int((expected.max(dim=1).values >= 0.95).sum()) == len(found)


def test_first_view_of_each_image_is_compared():
    train = torch.randn(6, 8, generator=torch.Generator().manual_seed(1))
    views = torch.stack([train, -train], dim=1).flatten(0, 1)
    found = near_duplicates(features(views, 2), features(train[4:5]), "fc")
    assert [pair[:2] for pair in found] == [(0, 4)]


def test_resized_copy_is_reported_without_cached_twin(image_folder, tmp_path, monkeypatch, cli):
    monkeypatch.setenv("ZOO_PLUGINS", "-tensorboard,-regression")
    root = tmp_path / "photos"
    shutil.copytree(image_folder, root)
    original = sorted((root / "train/mammal").iterdir())[0]
    with Image.open(original) as image:
        image.convert("RGB").save(root / "val/mammal/again.png")
    options = ("--input-size", "64", "--out", tmp_path / "run")
    code, _, err = cli("finetune", "efficientnet_lite/lite0", "--data", root, *options)
    assert code == 0
    (line,) = [line for line in err.splitlines() if "by features" in line]
    assert "of val look" in line
    assert f" val/mammal/again.png ~ {original.relative_to(root)}" in line
    assert zoo.load(tmp_path / "run").classes == ("flag", "mammal", "playing_card")
