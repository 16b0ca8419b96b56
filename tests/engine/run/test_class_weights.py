"""`--class-weights` and `--label-smoothing` in trainings of every kind of head and task."""

import json

import pytest
import torch
from torch import nn

import zoo
from zoo.modelfile import read_model

QUICK = {"weights": "none", "device": "cpu", "precision": "fp32", "batch_size": 8}
HEAVY = {"flag": 5.0, "playing_card": 0.25}


@pytest.fixture(autouse=True)
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def uneven_folder(tmp_path_factory, image_folder):
    """Eight flags, four mammals and two playing cards to train on."""
    root = tmp_path_factory.mktemp("uneven")
    for split in ("train", "val"):
        for folder in sorted((image_folder / split).iterdir()):
            (root / split / folder.name).mkdir(parents=True)
            count = {"flag": 8, "mammal": 4, "playing_card": 2}[folder.name]
            for path in sorted(folder.iterdir())[:count]:
                (root / split / folder.name / path.name).symlink_to(path)
    return root


def tensors(run):
    return read_model(run.path / "model.safetensors")[1].tensors


def equal(one, other):
    one, other = tensors(one), tensors(other)
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


@pytest.mark.parametrize("train", ["head", "all"])
def test_options_equal_the_loss_of_torch(tinynet, image_folder, train):
    options = {**QUICK, "data": image_folder, "train": train, "epochs": 1, "lr": 0.01}
    given = zoo.finetune(tinynet, class_weights=HEAVY, label_smoothing=0.1, **options)
    loss = nn.CrossEntropyLoss(torch.tensor([5.0, 1.0, 0.25]), label_smoothing=0.1)
    by_hand = zoo.finetune(tinynet, loss=loss, **options)
    assert equal(given, by_hand)
    assert not equal(given, zoo.finetune(tinynet, **options))
    plan = given.record["plan"]
    assert plan["class_weights"] == {"flag": 5.0, "mammal": 1.0, "playing_card": 0.25}
    assert plan["label_smoothing"] == 0.1
    assert plan["reasons"]["class_weights"] == "as given"


def test_weighted_micro_batches_sum_to_the_batch(plainnet, image_folder):
    """GroupNorm computes no statistics over a batch, so only the loss could differ."""
    options = {**QUICK, "data": image_folder, "train": "all", "epochs": 1, "optimizer": "sgd"}
    runs = [
        zoo.finetune(plainnet, class_weights=HEAVY, micro_batch_size=size, **options)
        for size in (8, 3)
    ]
    one, other = map(tensors, runs)
    for name, tensor in one.items():
        torch.testing.assert_close(tensor, other[name], rtol=1e-4, atol=1e-6)


def test_balanced_weights_and_smoothing_reach_the_probe(cli, tinynet, uneven_folder, tmp_path):
    code, _, err = cli(
        *("finetune", tinynet, "--data", uneven_folder, "--weights", "none", "--recipe", "probe"),
        *("--precision", "fp32", "--class-weights", "balanced", "--label-smoothing", "0.3"),
        *("--out", "run"),
    )
    assert code == 0, err
    record = json.loads((tmp_path / "run/run.json").read_text())
    expected = {"flag": 14 / 24, "mammal": 14 / 12, "playing_card": 14 / 6}
    assert record["plan"]["class_weights"] == pytest.approx(expected)
    assert record["plan"]["recipe"] == "probe"
    reason = "as given: balanced over the training split"
    assert record["plan"]["reasons"]["class_weights"] == reason
    # The gradient of the bias, which is not penalised, is zero: weighted sums of probabilities are
    # those of the targets.
    model, mean = zoo.load("run"), sum(expected.values()) / 3
    sums, targets = dict.fromkeys(expected, 0.0), dict.fromkeys(expected, 0.0)
    for name, weight in expected.items():
        paths = sorted((uneven_folder / "train" / name).iterdir())
        for prediction in model.predict(paths):
            for each in prediction["predictions"]:
                sums[each["class"]] += each["probability"] * (0.7 * weight + 0.3 * mean)
        targets[name] = 0.7 * weight * len(paths) + 0.1 * weight * 14
    assert sums == pytest.approx(targets, rel=5e-3)


def test_weights_exclude_a_loss_and_unknown_classes(cli, tinynet, image_folder):
    with pytest.raises(zoo.UsageError, match="class_weights and loss exclude each other"):
        zoo.plan(tinynet, data=image_folder, class_weights="balanced", loss=nn.CrossEntropyLoss())
    code, _, err = cli(
        *("finetune", tinynet, "--data", image_folder, "--weights", "none"),
        *("--class-weights", "flags=2", "--label-smoothing", "0.1"),
    )
    assert code == 2
    assert "--class-weights names 'flags', which is no class of the data" in err
    assert "did you mean flag" in err
    code, _, err = cli("finetune", tinynet, "--data", image_folder, "--label-smoothing", "2")
    assert code == 2
    assert "--label-smoothing is 2.0" in err
