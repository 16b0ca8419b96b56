"""Image regression, on drawn discs whose brightness and position are the numbers."""

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import r2_score
from torch import nn
from torch.utils.data import Dataset
from zoo_regression import plugin
from zoo_regression.data import RegressionSchema
from zoo_regression.task import ImageRegression

import zoo
import zoo.testing
from zoo.engine.run.artifacts import save_module
from zoo.engine.run.prepare import prepare, read_options
from zoo.inference.loading import load_model
from zoo.models.provenance import provenance_of
from zoo.options.class_weights import ClassWeights
from zoo.registry.registry import load_registry
from zoo.terminal import Progress

Command = Callable[..., subprocess.CompletedProcess[str]]


class TestTask(zoo.testing.TaskContract):
    task = "image-regression"
    backbone = "regression/mobilenet_v3_small"


class TestMobilenet(zoo.testing.BackboneContract):
    backbone = "regression/mobilenet_v3_small"


def test_the_entry_point_names_the_plugin() -> None:
    [point] = entry_points(group="zoo", name="regression")
    assert point.load() is plugin


def test_backbones_are_torchvision_s_with_their_weights() -> None:
    found = zoo.list_backbones(task=plugin.TASK)
    assert [backbone.name for backbone in found if backbone.source == "regression"]
    for backbone in (b for b in found if b.source == "regression"):
        base = zoo.get(f"torchvision/{backbone.name}")
        assert backbone.published == base
        assert (backbone.weights, backbone.heads) == (base.weights, base.heads)
    assert zoo.get("resnet18").id == "torchvision/resnet18"


FROZEN = ("--train", "head", "--epochs", "40", "--lr", "0.01")
ALL = ("--train", "all", "--epochs", "15", "--lr", "0.003")


@pytest.mark.parametrize(
    ("recipe", "least"),
    [
        pytest.param(FROZEN, 0.8, id="head", marks=pytest.mark.slow),
        pytest.param(ALL, 0.8, id="all"),
    ],
)
def test_training_beats_the_mean_by_far(
    discs: Path, run: Command, tmp_path: Path, recipe: tuple[str, ...], least: float
) -> None:
    out = tmp_path / "run"
    given = ("--data", "discs.csv", "--weights", "none", "--device", "cpu", "--out", str(out))
    done = run("finetune", "discnet/tiny", *given, *recipe, "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    val = record["metrics"]["val"]
    assert val["r2"] > least
    assert min(each["r2"] for each in val["per_target"].values()) > least - 0.1
    assert (record["task"], record["chance"], val["images"]) == ("image-regression", None, 24)
    assert record["plan"]["schema"]["targets"] == ["brightness", "x"]
    # Frozen images go through the network once, a check of the heads on a batch apart.
    forwards = record["backbone_forwards"]
    assert 120 <= forwards < 200 if recipe is FROZEN else forwards >= 15 * 120
    history = list(csv.DictReader((out / "history.csv").open()))
    assert [float(row["val_r2"]) for row in history if row["best"] == "1"][-1] == pytest.approx(
        val["r2"]
    )

    measured = run("evaluate", str(out), "--data", "discs.csv", "--json")
    assert measured.returncode == 0, measured.stderr
    found = json.loads(measured.stdout)
    assert found["split"] == "val"
    assert found["r2"] == pytest.approx(val["r2"], rel=1e-5)
    shown = run("evaluate", str(out), "--data", "discs.csv").stdout.split()
    assert ("r2", f"{val['r2']:.4f}") in pairwise(shown)

    names = [f"{number}.png" for number in range(40)]
    answered = run("predict", str(out), *names, "--json", "--csv", "all.csv")
    assert answered.returncode == 0, answered.stderr
    answers = json.loads(answered.stdout)
    assert [[p["target"] for p in answer["predictions"]] for answer in answers] == [
        ["brightness", "x"]
    ] * 40
    values = np.array([[p["value"] for p in answer["predictions"]] for answer in answers])
    rows = list(csv.DictReader((discs / "all.csv").open(newline="")))
    assert list(rows[0]) == ["path", "target", "value", "error"]
    assert [float(row["value"]) for row in rows] == values.ravel().tolist()
    truth = np.loadtxt(discs / "discs.csv", delimiter=",", skiprows=1, usecols=(1, 2))[:40]
    assert r2_score(truth, values) > least
    loaded = load_model(out, load_registry(plugins=[discs / "discnet.py"]))
    again = loaded.predict([discs / name for name in names])
    assert [a["predictions"] for a in again] == [a["predictions"] for a in answers]


class Brightness(Dataset[tuple[Image.Image, float]]):
    """Some of the discs, with one number each."""

    def __init__(self, discs: Path, numbers: range) -> None:
        rows = list(csv.DictReader((discs / "discs.csv").open()))
        self.items = [
            (discs / rows[number]["path"], float(rows[number]["brightness"])) for number in numbers
        ]

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Image.Image, float]:
        path, value = self.items[index]
        return Image.open(path), value


def test_a_dataset_with_a_loss_and_a_metric_of_one_s_own(
    zoo_isolated: zoo.testing.fixtures.IsolatedZoo,
    discs: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = ModuleType("discnet")
    exec((discs / "discnet.py").read_text(), network.__dict__)
    monkeypatch.setitem(sys.modules, "discnet", network)
    zoo_isolated.register("zoo_regression.plugin", "regression")
    assert zoo_isolated.register(network).status == "ok"
    val = Brightness(discs, range(60, 80))
    run = zoo.finetune(
        "discnet/tiny",
        data={"train": Brightness(discs, range(60)), "val": val},
        weights="none",
        train="all",
        epochs=4,
        batch_size=8,
        loss=nn.HuberLoss(),
        metrics={"largest": lambda found, true: (found - true).abs().max()},
        out=tmp_path / "run",
    )
    model = run.model()
    measured = model.evaluate(val)
    assert measured["mae"] == pytest.approx(run.metrics["val"]["mae"], rel=1e-5)
    assert 0 < run.metrics["val"]["mae"] < run.metrics["val"]["largest"] < 26
    assert model.schema.targets == ("value1",)
    other = tmp_path / "again.safetensors"
    zoo.save(model.module, other, model.schema)
    assert zoo.load(other).schema == model.schema
    with pytest.raises(zoo.UsageError, match="describes 2, but the output size of fc is 1"):
        zoo.save(model.module, other, RegressionSchema((), ("a", "b"), (0, 0), (1, 1)))
    with pytest.raises(zoo.UsageError, match="the targets of your Dataset are not classes"):
        zoo.finetune("discnet/tiny", data=val, weights="none", classes=2)


def test_published_weights_predict_no_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(zoo.UsageError, match="is published for image-classification"):
        zoo.predict("regression/resnet18", "x.png")


def test_without_data_there_is_no_demonstration(run: Command) -> None:
    done = run("finetune", "discnet/tiny", "--weights", "none")
    assert done.returncode == 2
    assert "no demonstration set for this task" in done.stderr


def test_numbers_have_no_class_weights(discs: Path) -> None:
    task = ImageRegression()
    data = task.open_data(discs / "discs.csv")
    with pytest.raises(zoo.UsageError, match="targets of image-regression are not classes"):
        task.weighted_loss(data, ClassWeights.read("balanced"), 0.0)


@pytest.mark.slow
def test_a_derived_backbone_names_the_task(run: Command, tmp_path: Path) -> None:
    registry = tmp_path / "registry.toml"
    registry.write_text(
        'schema = 1\n[backbones."house/lite"]\nextends = "lite0"\ntask = "image-regression"\n'
    )
    listed = run("list", "--task", plugin.TASK, "--json", "--registry", str(registry))
    assert "house/lite" in [each["id"] for each in json.loads(listed.stdout)]
    done = run(
        "finetune", "house/lite", "--data", "discs.csv", "--registry", str(registry),
        "--dry-run", "--json",
    )  # fmt: skip
    plan = json.loads(done.stdout)
    assert (plan["task"], plan["weights"]) == (plugin.TASK, "imagenet")
    assert (plan["recipe"], plan["loss"]) == ("head", "mean squared error")


def test_rows_of_a_trained_head_follow_the_names_of_targets(discs: Path, tmp_path: Path) -> None:
    registry = load_registry((), None, [discs / "discnet.py"])
    backbone = registry.get("discnet/tiny")
    model = backbone.build(classes=2)
    schema = RegressionSchema((), ("x", "height"), (0.0, 0.0), (1.0, 1.0))
    own = tmp_path / "own.safetensors"
    save_module(model, own, schema, provenance_of(model))
    options = read_options(data=discs / "discs.csv", weights=str(own), device="cpu", train="head")
    prepared = prepare("discnet/tiny", options, registry, Progress(quiet=True))
    assert prepared.network is not None
    rows = prepared.network.module.fc.weight
    assert prepared.plan.schema["targets"] == ("brightness", "x")
    assert torch.equal(rows[1], model.fc.weight[0])
    assert not torch.equal(rows[0], model.fc.weight[1])
    kept = "rows of the head by name: x kept, brightness new, height left out"
    assert kept in prepared.plan.reasons["weights"]
