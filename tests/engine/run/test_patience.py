"""`--patience`: a phase stops after epochs without a better one, and the best is kept."""

import csv
import json

import pytest
import torch

import zoo
from zoo.modelfile import read_model

QUICK = {"weights": "none", "device": "cpu", "precision": "fp32", "batch_size": 8, "lr": 0.05}


@pytest.fixture(autouse=True)
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def history(run):
    return list(csv.DictReader((run.path / "history.csv").open()))


def tensors(run):
    return read_model(run.path / "model.safetensors")[1].tensors


def test_patience_stops_after_epochs_without_a_better_one(tinynet, image_folder):
    calls = []
    options = {"data": image_folder, "epochs": 10, "select": "peak", **QUICK}

    def peak(logits, labels):
        calls.append(None)
        return {1: 3, 2: 4, 3: 5}.get(len(calls), 4)

    stopped = zoo.finetune(tinynet, patience=2, metrics={"peak": peak}, **options)
    assert [row["best"] for row in history(stopped)] == ["1", "1", "1", "0", "0"]
    assert stopped.record["plan"]["patience"] == 2
    (adjustment,) = stopped.record["adjustments"]
    assert (adjustment["name"], adjustment["value"]) == ("epochs", 5)
    assert adjustment["reason"] == "no better epoch in 2"
    calls.clear()
    whole = zoo.finetune(tinynet, metrics={"peak": peak}, **options)
    assert len(history(whole)) == 10
    # The schedule is that of all epochs, so the best epoch is the same.
    one, other = tensors(stopped), tensors(whole)
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_patience_counts_in_each_phase(tinynet, image_folder):
    calls = []

    def first(logits, labels):
        calls.append(None)
        return 1 if len(calls) == 1 else 0

    run = zoo.finetune(
        tinynet,
        data=image_folder,
        recipe="head-then-all",
        epochs=(5, 5),
        patience=2,
        select="first",
        metrics={"first": first},
        **QUICK,
    )
    assert [(row["phase"], row["epoch"]) for row in history(run)] == [
        ("head", "1"),
        ("head", "2"),
        ("head", "3"),
        ("all", "1"),
        ("all", "2"),
    ]


def test_patience_is_reported_and_excludes_the_probe(cli, tinynet, image_folder, tmp_path):
    options = ("finetune", tinynet, "--data", image_folder, "--weights", "none", "--out", "run")
    code, _out, err = cli(
        *options, "--train", "head", "--epochs", "9", "--lr", "1e-30", "--patience", "1"
    )
    assert code == 0
    assert "no better epoch in 1; stopping after 2" in err
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert len((tmp_path / "run/history.csv").read_text().splitlines()) == 3
    assert record["plan"]["phases"][0]["epochs"] == 9
    plan = zoo.plan(tinynet, data=image_folder, weights="none", recipe="head", patience=3)
    assert plan.patience == 3
    with pytest.raises(zoo.UsageError, match="patience requires training by epochs"):
        zoo.plan(tinynet, data=image_folder, weights="none", recipe="probe", patience=3)


def test_patience_without_validation_images_is_refused(tinynet, image_folder, tmp_path):
    options = {"data": image_folder / "train", "weights": "none", "val": 0}
    with pytest.raises(zoo.UsageError, match="patience=3 ranks epochs on validation images"):
        zoo.plan(tinynet, train="all", patience=3, **options)
    both = r"2 options are wrong: select loss .*; patience=3 "
    with pytest.raises(zoo.UsageError, match=both):
        zoo.plan(tinynet, train="all", patience=3, select="loss", **options)
