"""`zoo finetune --features`: the head alone, from files of `zoo embed`."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import zoo
from tests.inference.shards import labelled, write_shards
from tests.networks import train_probe
from zoo.engine.backends.eager import TorchEngine
from zoo.engine.backends.openvino import OpenVINOEngine
from zoo.engine.features.files import FeatureFiles, read_metadata, row_splits
from zoo.engine.probe import from_files
from zoo.engine.probe.logistic import fit_probe

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def model(tinynet, image_folder, tmp_path):
    """A model file of the network that computes the features."""
    return str(train_probe(tinynet, image_folder, tmp_path / "first"))


@pytest.fixture
def features(model, image_folder, tmp_path):
    samples = [each for split in ("train", "val", "test") for each in labelled(image_folder, split)]
    write_shards(tmp_path / "shards", samples[::-1], 7)
    zoo.embed(model, str(tmp_path / "shards/*.tar"), tmp_path / "features", device="cpu")
    return tmp_path / "features"


def rows(folder, split, seed=0, val=0.25):
    files = FeatureFiles.open(folder, seed, val)
    blocks = [block for path in files.paths for block in files.blocks(path, split)]
    return (torch.cat(column) for column in zip(*blocks, strict=True))


def finetune(cli, *arguments):
    return cli("finetune", *map(str, arguments), "--device", "cpu", "--json")


def test_files_with_and_without_splits_train_together(cli, model, features, image_folder):
    zoo.embed(model, image_folder, features / "folder.safetensors", device="cpu")
    files = FeatureFiles.open(features, 0, 0.25)
    for split in ("train", "val", "test"):
        blocks = [block for path in files.paths for block in files.blocks(path, split)]
        assert len(files.splits[split]) == sum(len(labels) for _, labels in blocks)
    code, out, err = finetune(cli, model, "--features", features, "--val", "0.25", "--out", "run")
    assert code == 0, err
    assert sum(json.loads(out)["plan"]["data"]["images"].values()) == 96


def test_head_is_that_of_the_solver(cli, model, features):
    code, out, err = finetune(cli, model, "--features", features, "--val", "0.25", "--out", "run")
    assert code == 0, err
    run = json.loads(out)
    assert run["plan"]["classes"] == ["flag", "mammal", "playing_card"]
    assert run["plan"]["recipe"] == "probe"
    assert "fit in memory" in run["plan"]["reasons"]["recipe"]
    counts = run["plan"]["data"]["images"]
    assert counts["train"] + counts["val"] == 48
    assert run["backbone_forwards"] == 0
    x, y = rows(features, "train")
    expected = fit_probe(x, y, 3)
    tensors = load_file("run/model.safetensors")
    assert torch.equal(tensors["head.fc.weight"], expected.weight.float())
    x, y = rows(features, "val")
    logits = x @ tensors["head.fc.weight"].T + tensors["head.fc.bias"]
    assert run["metrics"]["val"]["top1"] == pytest.approx(
        (logits.argmax(1) == y).double().mean().item()
    )
    # All else is that of the network that computed the features.
    before = load_file(f"{model}/model.safetensors")
    assert all(torch.equal(before[name], tensors[name]) for name in before if "head" not in name)


def test_model_predicts_images(cli, model, features, image_folder):
    finetune(cli, model, "--features", features, "--val", "0", "--out", "run")
    path = next((image_folder / "train/flag").iterdir())
    loaded = zoo.load("run", device="cpu")
    assert loaded.evaluate(image_folder, "train")["images"] == 24
    assert loaded.predict(path)[0]["predictions"]
    x = loaded.features(path)
    head = load_file("run/model.safetensors")
    logits = x @ head["head.fc.weight"].T + head["head.fc.bias"]
    assert logits.shape == (1, 3)


def test_ridge_has_the_same_bytes_for_any_number_of_workers(cli, model, features):
    digests = set()
    for workers in (1, 7):
        out = f"run{workers}"
        options = ["--recipe", "ridge", "--workers", workers, "--out", out]
        code, printed, err = finetune(cli, model, "--features", features, *options)
        assert code == 0, err
        run = json.loads(printed)
        assert run["plan"]["phases"][0]["optimizer"] == "ridge"
        digests.add(run["sha256"])
    assert len(digests) == 1
    assert 0.3 < run["probe"]["accuracy"][0] <= 1
    assert run["metrics"]["val"]["loss"] < 2
    _, printed, _ = cli("finetune", "--resume", "run7")  # prints the finished run
    accuracy = f"folds {run['probe']['accuracy'][0]:.1%}".replace("%", " %")
    assert f"{accuracy} in leave-one-out cross-validation on the training images" in printed


def test_model_names_the_engine_of_features_that_is_not_here(cli, model, features, monkeypatch):
    pytest.importorskip("openvino")
    converted = features.with_name("converted")
    shards = str(features.with_name("shards") / "*.tar")
    summary = zoo.embed(model, shards, converted, device="cpu", engine="openvino")
    assert summary["engine"] == "openvino"
    versions = {"openvino": OpenVINOEngine.version(), "torch": TorchEngine.version()}
    monkeypatch.setattr(OpenVINOEngine, "version", staticmethod(lambda: None))
    for folder, engine in ((features, "torch"), (converted, "openvino")):
        code, out, err = finetune(cli, model, "--features", folder)
        assert code == 0, err
        fitted = zoo.load(json.loads(out)["folder"]).card.features
        assert (fitted["engine"], fitted["version"]) == (engine, versions[engine])


def test_large_features_are_solved_in_one_pass(cli, model, features, monkeypatch):
    monkeypatch.setattr(from_files, "IN_MEMORY", 1000)
    code, out, err = finetune(cli, model, "--features", features, "--dry-run")
    assert code == 0, err
    plan = json.loads(out)
    assert plan["recipe"] == "ridge"
    assert "more than" in plan["reasons"]["recipe"]


def test_options_of_images_are_refused_together(cli, model, features):
    options = ["--augment", "--epochs", "3", "--input-size", "64", "--data", "photos"]
    code, _, err = finetune(cli, model, "--features", features, *options)
    assert code == 2
    message = json.loads(err.splitlines()[-1])["message"]
    assert message.startswith("4 options are wrong")
    for flag in ("--augment", "--epochs", "--input-size", "--data"):
        assert f"{flag} does not apply to --features" in message
    code, _, err = finetune(cli, model, "--recipe", "ridge")
    assert "--recipe ridge requires --features" in err
    code, _, err = finetune(cli, model, "--features", features, "--head", "mlp:8")
    error = json.loads(err.splitlines()[-1])
    assert (code, error["hint"]) == (2, "remove the conflict, or give --data")
    assert error["message"].startswith("--features cannot train the head: a head with hidden")


def test_features_of_other_weights_are_refused(cli, tinynet, features):
    code, _, err = finetune(cli, tinynet, "--features", features, "--weights", "none", "--seed", 1)
    assert code == 2
    assert "computed with other weights" in json.loads(err.splitlines()[-1])["message"]


def test_file_whose_labels_or_rows_do_not_fit_is_refused(features):
    file = min(features.iterdir())
    tensors, metadata = load_file(file), read_metadata(file)
    labels, rows = tensors["labels"], tensors["features"]
    for changed in (
        {"labels": labels + 9},
        {"labels": labels - 9},
        {"labels": labels.float()},
        {"labels": labels[1:]},
        {"features": rows[1:]},
        {"features": rows.long()},
        {"paths": metadata["paths"][1:]},
        {"splits": metadata["splits"][1:]},
        {"classes": [1, 2, 3]},
        {"classes": metadata["classes"][:1] * 3},
        {"backbone": None},
    ):
        about = {**metadata, **{k: v for k, v in changed.items() if k in metadata}}
        found = {**tensors, **{k: v for k, v in changed.items() if k in tensors}}
        save_file(found, file, {"zoo": json.dumps(about)})
        with pytest.raises(zoo.WeightsError, match="has no features of `zoo embed`"):
            read_metadata(file)
    save_file(tensors, file, {"zoo": json.dumps(metadata)})
    assert read_metadata(file) == metadata


def test_folder_without_features_is_refused(cli, tmp_path, model):
    code, _, err = finetune(cli, model, "--features", tmp_path / "nothing")
    assert code == 3
    assert "has no files of features" in err
    (tmp_path / "f.npy").write_bytes(b"numbers")
    with pytest.raises(zoo.DataError, match=r"f\.npy has no files.* writes them, as \.safetensors"):
        zoo.plan(features=tmp_path / "f.npy")
    (tmp_path / "nothing").mkdir()
    model_file = Path(model) / "model.safetensors"
    (tmp_path / "nothing/model.safetensors").write_bytes(model_file.read_bytes())
    code, _, err = finetune(cli, model, "--features", tmp_path / "nothing")
    assert code == 4
    assert "has no features of `zoo embed`" in err


def test_splits_of_one_file_are_kept(model, image_folder, tmp_path):
    zoo.embed(model, image_folder, tmp_path / "f.safetensors", device="cpu")
    run = zoo.finetune(
        model, features=tmp_path / "f.safetensors", out=tmp_path / "run", device="cpu"
    )
    assert run.record["plan"]["data"]["images"] == {"train": 24, "val": 12, "test": 12}
    # The head of a training on the same images, whose features are the same.
    tensors = load_file(run.path / "model.safetensors")
    first = load_file(f"{model}/model.safetensors")
    assert torch.allclose(tensors["head.fc.weight"], first["head.fc.weight"], atol=1e-4)
    assert run.metrics["val"]["top1"] == zoo.evaluate(run.path, image_folder, split="val")["top1"]


def test_held_out_rows_depend_on_seed_and_key_alone(features):
    before = {file.name: val_keys(file) for file in features.iterdir()}
    (features / "shard-003.safetensors").unlink()
    after = {file.name: val_keys(file) for file in features.iterdir()}
    assert after == {name: keys for name, keys in before.items() if name in after}
    assert 4 <= sum(map(len, before.values())) <= 22
    assert any(val_keys(file, seed=1) != after[file.name] for file in features.iterdir())


def val_keys(file, seed=0):
    metadata = read_metadata(file)
    splits = row_splits(metadata, seed, 0.25)
    return [key for key, split in zip(metadata["paths"], splits, strict=True) if split == "val"]
