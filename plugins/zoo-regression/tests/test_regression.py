"""Image regression, on drawn discs whose brightness and position are the numbers."""

import csv
import json
import os
import subprocess
import sys
from importlib.metadata import entry_points
from itertools import pairwise
from pathlib import Path
from random import Random
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error
from torch import nn
from torch.utils.data import Dataset
from zoo_regression import plugin
from zoo_regression.data import RegressionSchema
from zoo_regression.task import ImageRegression, RegressionMetric

import zoo
import zoo.testing
from zoo.data.loader import load_batches
from zoo.engine.run.artifacts import save_module
from zoo.engine.run.prepare import prepare, read_options
from zoo.inference.loading import load_model
from zoo.models.provenance import provenance_of
from zoo.options.class_weights import ClassWeights
from zoo.options.columns import Columns
from zoo.registry.registry import load_registry
from zoo.tasks.base import Outputs
from zoo.terminal import Progress

TARGETS = ("brightness", "x")
NETWORK = """
import zoo

@zoo.hookimpl
def zoo_register_backbones():
    small = zoo.Preprocess(size=32, resize=32)
    yield zoo.Backbone("tiny", "discnet:build", (zoo.Head("fc"),), small, task="image-regression")

def build(weights=None, num_classes=7):
    from torch import nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            first, second = nn.Conv2d(3, 16, 5, 4), nn.Conv2d(16, 16, 3, 2)
            self.body = nn.Sequential(
                first, nn.BatchNorm2d(16), nn.ReLU(), second, nn.ReLU(), nn.Flatten()
            )
            self.fc = nn.Linear(144, num_classes)

        def forward(self, images):
            return self.fc(self.body(images))

    return Net()
"""


class TestTask(zoo.testing.TaskContract):
    task = "image-regression"
    backbone = "regression/mobilenet_v3_small"


class TestMobilenet(zoo.testing.BackboneContract):
    backbone = "regression/mobilenet_v3_small"


def disc(brightness: int, x: int) -> Image.Image:
    image = Image.new("RGB", (32, 32))
    ImageDraw.Draw(image).ellipse((x - 6, 10, x + 6, 22), fill=(brightness,) * 3)
    return image


def drawn(count: int, seed: int = 0) -> list[tuple[Image.Image, tuple[float, float]]]:
    """Return discs with their brightness in tenths and their horizontal position in pixels."""
    random = Random(seed)
    pairs = [(random.randrange(40, 256), random.randrange(8, 24)) for _ in range(count)]
    return [(disc(brightness, x), (brightness / 10, x)) for brightness, x in pairs]


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of 120 discs, and `discnet.py` beside it."""
    folder = tmp_path_factory.mktemp("discs")
    with (folder / "discs.csv").open("w") as file:
        rows = csv.writer(file)
        rows.writerow(["path", *TARGETS])
        for number, (image, values) in enumerate(drawn(120)):
            image.save(folder / f"{number}.png")
            rows.writerow([f"{number}.png", *values])
    (folder / "discnet.py").write_text(NETWORK)
    return folder


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("ZOO_PLUGINS", "-tensorboard")


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "zoo", *arguments, "--plugin", str(folder / "discnet.py")]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=folder, env=os.environ, timeout=300
    )


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
    discs: Path, tmp_path: Path, recipe: tuple[str, ...], least: float
) -> None:
    out = tmp_path / "run"
    given = ("--data", "discs.csv", "--weights", "none", "--device", "cpu", "--out", str(out))
    done = run(discs, "finetune", "discnet/tiny", *given, *recipe, "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads(done.stdout)
    val = record["metrics"]["val"]
    assert val["r2"] > least
    assert min(each["r2"] for each in val["per_target"].values()) > least - 0.1
    assert (record["task"], record["chance"], val["images"]) == ("image-regression", None, 24)
    assert record["plan"]["schema"]["targets"] == list(TARGETS)
    # Frozen images go through the network once, a check of the heads on a batch apart.
    forwards = record["backbone_forwards"]
    assert 120 <= forwards < 200 if recipe is FROZEN else forwards >= 15 * 120
    history = list(csv.DictReader((out / "history.csv").open()))
    assert [float(row["val_r2"]) for row in history if row["best"] == "1"][-1] == pytest.approx(
        val["r2"]
    )

    measured = run(discs, "evaluate", str(out), "--data", "discs.csv", "--json")
    assert measured.returncode == 0, measured.stderr
    found = json.loads(measured.stdout)
    assert found["split"] == "val"
    assert found["r2"] == pytest.approx(val["r2"], rel=1e-5)
    shown = run(discs, "evaluate", str(out), "--data", "discs.csv").stdout.split()
    assert ("r2", f"{val['r2']:.4f}") in pairwise(shown)

    names = [f"{number}.png" for number in range(40)]
    answered = run(discs, "predict", str(out), *names, "--json", "--csv", "all.csv")
    assert answered.returncode == 0, answered.stderr
    answers = json.loads(answered.stdout)
    assert [[p["target"] for p in answer["predictions"]] for answer in answers] == [
        list(TARGETS)
    ] * 40
    values = np.array([[p["value"] for p in answer["predictions"]] for answer in answers])
    rows = list(csv.DictReader((discs / "all.csv").open(newline="")))
    assert list(rows[0]) == ["path", "target", "value", "error"]
    assert [float(row["value"]) for row in rows] == values.ravel().tolist()
    truth = np.array([numbers for _, numbers in drawn(40)])
    assert r2_score(truth, values) > least
    loaded = load_model(out, load_registry(plugins=[discs / "discnet.py"]))
    again = loaded.predict([discs / name for name in names])
    assert [a["predictions"] for a in again] == [a["predictions"] for a in answers]


class Discs(Dataset[tuple[Image.Image, Any]]):
    def __init__(self, count: int, seed: int = 0, single: bool = False) -> None:
        self.items, self.single = drawn(count, seed), single

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Image.Image, Any]:
        image, values = self.items[index]
        return image, values[0] if self.single else torch.tensor(values)


def test_a_dataset_with_a_loss_and_a_metric_of_one_s_own(
    zoo_isolated: zoo.testing.fixtures.IsolatedZoo,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = ModuleType("discnet")
    exec(NETWORK, network.__dict__)
    monkeypatch.setitem(sys.modules, "discnet", network)
    zoo_isolated.register("zoo_regression.plugin", "regression")
    assert zoo_isolated.register(network).status == "ok"
    run = zoo.finetune(
        "discnet/tiny",
        data={"train": Discs(60, single=True), "val": Discs(20, 1, single=True)},
        weights="none",
        train="all",
        epochs=4,
        batch_size=8,
        loss=nn.HuberLoss(),
        metrics={"largest": lambda found, true: (found - true).abs().max()},
        out=tmp_path / "run",
    )
    model = run.model()
    measured = model.evaluate(Discs(20, 1, single=True))
    assert measured["mae"] == pytest.approx(run.metrics["val"]["mae"], rel=1e-5)
    assert 0 < run.metrics["val"]["mae"] < run.metrics["val"]["largest"] < 26
    assert model.schema.targets == ("value1",)
    other = tmp_path / "again.safetensors"
    zoo.save(model.module, other, model.schema)
    assert zoo.load(other).schema == model.schema
    with pytest.raises(zoo.UsageError, match="describes 2, but the output size of fc is 1"):
        zoo.save(model.module, other, RegressionSchema((), ("a", "b"), (0, 0), (1, 1)))
    with pytest.raises(zoo.UsageError, match="the targets of your Dataset are not classes"):
        zoo.finetune("discnet/tiny", data=Discs(8), weights="none", classes=2)


def batches(data: Any, split: str = "train") -> torch.Tensor:
    transform = ImageRegression().transform(zoo.Preprocess(size=32))
    chosen = data.splits[split]
    return torch.cat([b.targets for b in load_batches(chosen, transform, range(len(chosen)), 8)])


def test_targets_are_standardized_by_the_train_split(discs: Path) -> None:
    data = ImageRegression().open_data(discs / "discs.csv", seed=3)
    assert {name: len(split) for name, split in data.splits.items()} == {"train": 96, "val": 24}
    targets = batches(data)
    assert targets.dtype == torch.float32
    torch.testing.assert_close(targets.mean(0), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(targets.std(0, correction=0), torch.ones(2))
    rows = {row["path"]: row for row in csv.DictReader((discs / "discs.csv").open())}
    true = [[float(rows[path][n]) for n in TARGETS] for path in data.splits["val"].paths]  # type: ignore[attr-defined]
    np.testing.assert_allclose(data.schema.in_units(batches(data, "val")), true, rtol=1e-5)  # type: ignore[attr-defined]
    other = ImageRegression().open_data(discs / "discs.csv", seed=4)
    assert other.splits["val"].paths != data.splits["val"].paths  # type: ignore[attr-defined]


@pytest.mark.parametrize("sizes", [[13], [1] * 13, [4, 9], [6, 6, 1]])
def test_metrics_are_scikit_learn_s_in_units_of_the_data(sizes: list[int]) -> None:
    torch.manual_seed(0)
    schema = RegressionSchema((), TARGETS, (20.0, -3.0), (5.0, 0.1))
    true, found = torch.randn(2, 13, 2).unbind()
    further = {"bias": lambda outputs, targets: (outputs - targets).mean()}
    metric = RegressionMetric(schema, torch.device("cpu"), further)
    for outputs, targets in zip(found.split(sizes), true.split(sizes), strict=True):
        metric.update(Outputs(outputs), targets)
    in_units = [schema.in_units(each).numpy() for each in (true, found)]
    values = metric.compute()
    assert values["mae"] == pytest.approx(mean_absolute_error(*in_units))
    assert values["rmse"] == pytest.approx(root_mean_squared_error(*in_units))
    assert values["r2"] == pytest.approx(r2_score(*in_units))
    assert values["loss"] == pytest.approx(torch.nn.functional.mse_loss(found, true).item())
    assert values["bias"] == pytest.approx((in_units[1] - in_units[0]).mean(), rel=1e-5)
    each = r2_score(*in_units, multioutput="raw_values")
    assert [m["r2"] for m in metric.report()["per_target"].values()] == pytest.approx(list(each))


def test_r2_of_targets_that_do_not_vary_is_scikit_learn_s() -> None:
    schema = RegressionSchema((), ("a", "b"), (0.0, 0.0), (1.0, 1.0))
    true = torch.tensor([[0.1, 7.0]] * 5)
    found = true + torch.tensor([0.0, 1.0])
    metric = RegressionMetric(schema, torch.device("cpu"))
    metric.update(Outputs(found), true)
    assert [m["r2"] for m in metric.report()["per_target"].values()] == [1.0, 0.0]
    assert metric.compute()["r2"] == r2_score(true.numpy(), found.numpy()) == 0.5


def table(folder: Path, text: str, name: str = "table.csv") -> Path:
    for number in range(4):
        disc(100, 10).save(folder / f"{number}.png")
    (folder / name).write_text(text)
    return folder / name


def test_one_report_names_every_line_that_is_wrong(tmp_path: Path) -> None:
    path = table(
        tmp_path,
        "path,age,split\n0.png,1,train\n1.png,old,train\n2.png,nan,val\n9.png,4,test\n"
        "3.png,5,tran\n3.png,6\n",
    )
    with pytest.raises(zoo.DataError) as caught:
        ImageRegression().open_data(path)
    message = str(caught.value)
    for line, what in (
        (3, "could not convert string to float: 'old'"),
        (4, "[nan] is not age in finite numbers"),
        (5, "there is no file '9.png'"),
        (6, "its split is 'tran'; did you mean train"),
        (7, "it has 2 fields, and the first line 3"),
    ):
        assert f"line {line}: {what}" in message
    assert "line 2" not in message
    done = run_at(tmp_path, path)
    assert (done.returncode, done.stderr.count("\n")) == (3, 1)
    assert "line 3: " in done.stderr


def run_at(folder: Path, data: Path) -> subprocess.CompletedProcess[str]:
    (folder / "discnet.py").write_text(NETWORK)
    return run(folder, "finetune", "discnet/tiny", "--data", str(data), "--weights", "none")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0.png,1\n1.png,2\n", "names the columns 0.png, 1"),
        ("path,split\n0.png,train\n", "names the columns path, split"),
        ("path,age\n", "it lists no images"),
        ("path,age\n0.png,3\n", "1 image is to train on"),
        ("path,age\n0.png,3\n1.png,3\n2.png,3\n", "the same for all training images"),
        ("path,age,split\n0.png,3,val\n1.png,3,test\n", "0 images are to train on"),
    ],
)
def test_a_table_that_cannot_be_trained_on(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(zoo.DataError, match=message):
        ImageRegression().open_data(table(tmp_path, text))


def test_splits_as_listed_and_columns_by_name(tmp_path: Path) -> None:
    task = ImageRegression()
    text = "split\tage\tpath\tsize\ntrain\t1\t0.png\t5\nval\t2\t1.png\t6\ntest\t4\t2.png\t7\n"
    path = table(tmp_path, text + "train\t3\t3.png\t8\n", "table.tsv")
    data = task.open_data(path)
    assert data.schema == RegressionSchema((), ("age", "size"), (2.0, 6.5), (1.0, 1.5))
    assert {name: list(split.targets) for name, split in data.splits.items()} == {
        "train": [(-1.0, -1.0), (1.0, 1.0)],
        "val": [(0.0, pytest.approx(-1 / 3))],
        "test": [(2.0, pytest.approx(1 / 3))],
    }
    schema = RegressionSchema((), ("size",), (0.0,), (2.0,))
    assert task.open_split(path, schema).targets == ((3.5,),)
    assert task.open_split(path, schema, "val").targets == ((3.0,),)
    with pytest.raises(zoo.DataError, match="has no column 'depth'"):
        task.open_split(path, RegressionSchema((), ("depth",), (0.0,), (1.0,)))


@pytest.mark.parametrize(
    ("name", "text", "columns"),
    [
        ("t.csv", "file_name,age,set\n0.png,1,train\n1.png,3,train\n2.png,2,valid\n", None),
        ("t.csv", "age;path;split\n1;.\\0.png;train\n3;1;Training\n2;2;val\n", None),
        ("t.csv", "path,x,age\n2.png,train,1\n3.png,train,3\n1.png,val,2\n", "split=x"),
        ("t.csv", "a,b,age,split\n2,0.png,1,train\n3,1.png,3,train\n1,2.png,2,val\n", "image=b"),
        ("t.jsonl", "".join(f'{{"img": "{i}.png", "age": {i % 3}}}\n' for i in range(4)), None),
    ],
)
def test_columns_of_images_and_splits_are_found(
    tmp_path: Path, name: str, text: str, columns: str | None
) -> None:
    given = None if columns is None else Columns.parse(columns)
    path = table(tmp_path, text, name)
    if columns == "image=b":
        assert ImageRegression().open_data(path, columns=given).schema.targets == ("a", "age")
        return
    data = ImageRegression().open_data(path, columns=given)
    assert data.schema.targets == ("age",)
    assert data.schema.mean == ((2.0,) if "train" in text else data.schema.mean)
    assert data.splits["train"].image(0).size == (32, 32)


def test_a_dataset_s_bad_items_are_named_together() -> None:
    items = [(disc(100, 10), value) for value in (1.0, float("inf"), 3.0, "five")]
    with pytest.raises(zoo.DataError) as caught:
        ImageRegression().open_data({"train": Listed(items)})
    assert "item 1: inf is not value1 in finite numbers; item 3: " in str(caught.value)


class Listed(Dataset[Any]):
    def __init__(self, items: list[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        return self.items[index]


def test_published_weights_predict_no_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(zoo.UsageError, match="is published for image-classification"):
        zoo.predict("regression/resnet18", "x.png")


def test_without_data_there_is_no_demonstration(discs: Path) -> None:
    done = run(discs, "finetune", "discnet/tiny", "--weights", "none")
    assert done.returncode == 2
    assert "no demonstration set for this task" in done.stderr


def test_numbers_have_no_class_weights(discs: Path) -> None:
    task = ImageRegression()
    data = task.open_data(discs / "discs.csv")
    with pytest.raises(zoo.UsageError, match="targets of image-regression are not classes"):
        task.weighted_loss(data, ClassWeights.read("balanced"), 0.0)


@pytest.mark.slow
def test_a_derived_backbone_names_the_task(discs: Path, tmp_path: Path) -> None:
    registry = tmp_path / "registry.toml"
    registry.write_text(
        'schema = 1\n[backbones."house/lite"]\nextends = "lite0"\ntask = "image-regression"\n'
    )
    listed = run(discs, "list", "--task", plugin.TASK, "--json", "--registry", str(registry))
    assert "house/lite" in [each["id"] for each in json.loads(listed.stdout)]
    done = run(
        discs, "finetune", "house/lite", "--data", "discs.csv", "--registry", str(registry),
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
    assert TARGETS == ("brightness", "x")
    assert torch.equal(rows[1], model.fc.weight[0])
    assert not torch.equal(rows[0], model.fc.weight[1])
    kept = "rows of the head by name: x kept, brightness new, height left out"
    assert kept in prepared.plan.reasons["weights"]
