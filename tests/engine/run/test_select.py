"""`--select`: the metric that ranks epochs and the penalties of a probe."""

import csv
import json
import shutil

import pytest
import torch

import zoo
from zoo.modelfile import read_model

QUICK = {
    "weights": "none",
    "device": "cpu",
    "precision": "fp32",
    "batch_size": 8,
    "lr": 0.05,
    "epochs": 5,
}


@pytest.fixture(autouse=True)
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def first_logit(logits, labels):
    """Return a metric that is not monotonic in the loss."""
    return float(logits[0, 0])


def history(run):
    rows = csv.DictReader((run.path / "history.csv").open())
    return [{name: float(value) for name, value in row.items() if name != "phase"} for row in rows]


def kept_epoch(run):
    return max(n for n, row in enumerate(history(run), start=1) if row["best"])


@pytest.fixture
def trained(tinynet, image_folder):
    """Return a function that trains tinynet on uneven classes."""

    def train(**options):
        return zoo.finetune(tinynet, data=image_folder, **{**QUICK, **options})

    return train


@pytest.mark.parametrize(
    ("select", "sign"), [("loss", -1), ("balanced_accuracy", 1), ("first_logit", 1)]
)
def test_select_keeps_the_best_epoch(trained, select, sign):
    run = trained(select=select, metrics={"first_logit": first_logit})
    scores = [(sign * row[f"val_{select}"], -row["val_loss"]) for row in history(run)]
    assert kept_epoch(run) == scores.index(max(scores)) + 1
    assert run.metrics["val"][select] == pytest.approx(sign * max(scores)[0])
    plan = run.record["plan"]
    assert (plan["select"], plan["reasons"]["select"]) == (select, "as given")


def test_select_changes_the_kept_epoch(trained):
    metrics = {"first_logit": first_logit}
    by_loss = trained(select="loss", metrics=metrics)
    by_logit = trained(select="first_logit", metrics=metrics)
    assert [row["val_loss"] for row in history(by_loss)] == [
        row["val_loss"] for row in history(by_logit)
    ]
    assert kept_epoch(by_loss) != kept_epoch(by_logit)


def test_select_default_ranks_by_top1_then_loss(trained):
    default, given = trained(), trained(select="top1")
    assert default.record["plan"]["select"] == "top1"
    assert default.record["plan"]["reasons"]["select"] == "auto: default of the task"
    one, other = (read_model(run.path / "model.safetensors")[1].tensors for run in (default, given))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    scores = [(row["val_top1"], -row["val_loss"]) for row in history(default)]
    assert kept_epoch(default) == scores.index(max(scores)) + 1


@pytest.mark.parametrize("name", ["top_1", "f1", "images"])
def test_select_unknown_metric_is_refused(cli, tinynet, image_folder, name):
    code, _, err = cli("finetune", tinynet, "--data", image_folder, "--select", name)
    assert code == 2
    assert f"--select {name}: image-classification has no such metric" in err
    assert "top1" in err


def test_chance_of_uneven_split_is_recorded(cli, tinynet, image_folder, tmp_path):
    shutil.copytree(image_folder, tmp_path / "uneven")
    for path in sorted((tmp_path / "uneven/val/flag").iterdir())[1:]:
        path.unlink()
    code, out, _ = cli(
        *("finetune", tinynet, "--data", "uneven", "--weights", "none", "--epochs", "1"),
        *("--select", "balanced_accuracy", "--out", "run", "--precision", "fp32"),
    )
    record = json.loads((tmp_path / "run/run.json").read_text())
    assert code == 0
    assert record["chance"] == record["metrics"]["val"]["chance"] == 4 / 9
    assert record["metrics"]["test"]["chance"] == 4 / 12
    val, test = (line for line in out.splitlines() if line.startswith(("val ", "test ")))
    assert "chance is 44.4 %" in val
    assert ", balanced " in val
    assert "chance is 33.3 %" in test
    assert ", balanced " not in test
