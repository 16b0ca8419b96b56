"""`zoo embed`: files of features with paths and classes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

import zoo
from zoo.cache import entries


@pytest.fixture(autouse=True)
def alone(own_cache, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def trained(tinynet, image_folder):
    return zoo.finetune(
        tinynet, data=image_folder, weights="none", recipe="probe", precision="fp32", device="cpu"
    )


def embed(cli, *arguments):
    return cli("embed", *arguments, "--device", "cpu", "--quiet")


def test_safetensors_has_features_paths_and_classes(cli, trained, image_folder):
    done = embed(
        cli, str(trained.path), "--data", str(image_folder), "--out", "f.safetensors", "--json"
    )
    assert done[0] == 0, done[2]
    summary = json.loads(done[1])
    assert (summary["images"], summary["width"]) == (48, 16)
    assert summary["backbone_forwards"] == 0  # cached by training
    tensors = load_file("f.safetensors")
    with safe_open("f.safetensors", "pt") as file:
        metadata = json.loads(file.metadata()["zoo"])
    assert metadata["classes"] == ["flag", "mammal", "playing_card"]
    assert sorted(set(metadata["splits"])) == ["test", "train", "val"]
    for row in (0, 17, 47):
        path = metadata["paths"][row]
        assert metadata["classes"][tensors["labels"][row]] in path
        alone = zoo.features(trained.path, path, device="cpu")
        assert torch.allclose(tensors["features"][row], alone[0], atol=1e-6)


def test_npy_has_metadata_in_json_file(cli, trained, image_folder):
    for name in ("f.safetensors", "f.npy"):
        assert embed(cli, str(trained.path), "--data", str(image_folder), "--out", name)[0] == 0
    array, metadata = np.load("f.npy"), json.loads(Path("f.json").read_text())
    tensors = load_file("f.safetensors")
    assert np.array_equal(array, tensors["features"].numpy())
    assert metadata["labels"] == tensors["labels"].tolist()
    assert len(metadata["paths"]) == 48


def test_features_replace_no_other_file(cli, trained, image_folder):
    """A model file as `--out` would be lost, with what was trained."""
    model, record = trained.path / "model.safetensors", trained.path / "run.json"
    before = model.read_bytes(), record.read_bytes()
    for out, name in ((model, model), (trained.path / "run.npy", record)):
        code, _, err = embed(cli, trained.path, "--data", image_folder, "--out", out)
        assert code == 2
        assert f"{name}" in err
        assert "would be replaced; give another file" in err
    assert (model.read_bytes(), record.read_bytes()) == before
    for _ in range(2):  # features are
        assert embed(cli, trained.path, "--data", image_folder, "--out", "f.safetensors")[0] == 0
    code, _, err = cli("predict", "f.safetensors", image_folder)
    assert code == 4
    assert "f.safetensors contains features of images, and no network; give a model" in err


def test_folder_without_classes(cli, trained, image_folder, tmp_path):
    flat = tmp_path / "flat"
    shutil.copytree(image_folder / "train/flag", flat)
    (flat / "notes.txt").write_text("no image")
    (flat / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    options = ["--data", str(flat), "--out", "f.safetensors"]
    refused = embed(cli, str(trained.path), *options)
    assert refused[0] == 3
    assert "broken.jpg" in refused[2]
    assert not (tmp_path / "f.safetensors").exists()
    done = embed(cli, str(trained.path), *options, "--bad-images", "skip", "--json")
    assert json.loads(done[1])["images"] == 8
    assert list(json.loads(done[1])["bad_images"]) == [str(flat / "broken.jpg")]
    assert set(load_file("f.safetensors")) == {"features"}
    rank = cli("rank", "--data", str(flat), "lite0")
    assert rank[0] == 3
    assert "classes" in rank[2]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["lite0", "--out", "f.csv"], 2, "f.safetensors"),
        (["lite9", "--out", "f.npy"], 2, "lite0"),
        (["resnet18", "--out", "f.npy"], 4, "cannot"),
        (["lite0", "--out", "missing.file/f.npy", "--data", "nowhere"], 3, "nowhere"),
    ],
)
def test_invalid_arguments_exit_code_and_message(cli, image_folder, arguments, code, message):
    data = [] if "--data" in arguments else ["--data", str(image_folder)]
    done = embed(cli, *arguments, *data)
    assert done[0] == code
    assert message in done[2]
    assert entries("features") == []
