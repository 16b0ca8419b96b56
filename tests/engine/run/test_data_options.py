"""Options of the data in trainings: columns, share for validation, groups."""

import itertools
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

import zoo
from tests.tasks.classification.data.test_columns import LABELS
from tests.tasks.classification.data.test_folder import make

QUICK = {"weights": "none", "device": "cpu", "precision": "fp32"}


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """Twenty images, of two classes and five patients, and a table of them."""
    monkeypatch.chdir(tmp_path)
    names = [f"{label}{i}_p{i // 2}" for i, label in enumerate(LABELS)]
    folder = make(tmp_path / "photos", *(f"{name}/{n}.png" for name in names for n in "ab"))
    rows = [
        f"{name}/{n}.png,{label},{name[-2:]},x"
        for name, label in zip(names, LABELS, strict=True)
        for n in "ab"
    ]
    (folder / "t.csv").write_text("\n".join(["photo,kind,patient,note", *rows]))
    return folder / "t.csv"


def test_columns_are_recorded_and_used_again(photos, tinynet, cli):
    columns = "image=photo,label=kind"
    code, _, err = cli("finetune", tinynet, "--data", photos, "--weights", "none")
    assert (code, "names no column label or class" in err) == (3, True)
    run = zoo.finetune(tinynet, data=photos, columns=columns, epochs=1, **QUICK)
    assert run.record["plan"]["classes"] == ["cat", "dog"]
    assert run.record["plan"]["data"]["options"] == {"columns": columns}
    model = zoo.load(run.path, "cpu")
    values = model.evaluate(photos)
    assert (values["split"], values["images"]) == ("val", 4)
    assert model.evaluate(photos, columns={"label": "kind", "image": "photo"})["images"] == 4
    moved = photos.rename(photos.with_name("other.csv"))
    moved.write_text(moved.read_text().replace("photo,kind", "photo,species"))
    code, _, err = cli("evaluate", run.path, "--data", moved, "--device", "cpu")
    assert (code, "names no column label" in err) == (3, True)
    other = ("--data", moved, "--columns", "label=species", "--device", "cpu")
    code, out, _ = cli("evaluate", run.path, *other, "--json")
    assert (code, '"images": 4' in out) == (0, True)
    code, out, _ = cli("embed", run.path, *other, "--out", "features.npy", "--json")
    assert (code, '"images": 20' in out) == (0, True)


def test_share_is_held_out_by_val(photos, tinynet):
    options = {"data": photos, "columns": "label=kind", "epochs": 1, **QUICK}
    plan = zoo.finetune(tinynet, val=0.4, **options).record["plan"]
    assert plan["data"]["images"] == {"train": 12, "val": 8}
    assert plan["val_fraction"] == 0.4
    assert plan["reasons"]["val_fraction"] == "as given"
    with pytest.raises(zoo.UsageError, match=r"^val is 1; give a number from 0 to below 1"):
        zoo.finetune(tinynet, val=1, **options)


def clock():
    """Return a metric that is higher in each epoch."""
    ticks = itertools.count()
    return lambda logits, labels: float(next(ticks))


@pytest.mark.parametrize(
    "options", [{"train": "head"}, {"train": "all"}, {"recipe": "head-then-all"}]
)
def test_val_zero_keeps_the_last_epoch(tinynet, image_folder, tmp_path, monkeypatch, options):
    monkeypatch.chdir(tmp_path)
    given = {"epochs": 3, "batch_size": 8, "lr": 0.05, **options, **QUICK}
    metrics = {"metrics": {"clock": clock()}, "select": "clock"}
    validated = zoo.finetune(tinynet, data=image_folder, **metrics, **given)
    shutil.copytree(image_folder / "train", tmp_path / "whole")
    whole = zoo.finetune(tinynet, data=tmp_path / "whole", val=0, **given)
    assert whole.metrics == {}
    first, second = (load_file(run.path / "model.safetensors") for run in (validated, whole))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    lines = (whole.path / "history.csv").read_text().splitlines()
    assert all(float(line.split(",")[3]) > 0 for line in lines[1:])
    assert zoo.load(whole.path, "cpu").predict(next((tmp_path / "whole").rglob("*.*")))
    reason = whole.record["plan"]["reasons"]["data"]
    assert reason == "nothing is held out: all images train, without validation"


def test_probe_on_all_images_has_no_validation(photos, tinynet, cli):
    given = ("--data", photos, "--columns", "label=kind", "--weights", "none", "--val", "0")
    code, out, err = cli("finetune", tinynet, *given, "--recipe", "probe", "--out", "whole")
    assert (code, "val " in out, "folds" in out) == (0, False, True)
    assert "train head to its optimum" in err
    record = json.loads((photos.parent.parent / "whole" / "run.json").read_text())
    assert (record["metrics"], record["plan"]["data"]["images"]) == ({}, {"train": 20})
    values = zoo.load("whole", "cpu").evaluate(photos)
    assert (values["split"], values["images"]) == ("train", 20)
    code, _, err = cli("finetune", tinynet, *given, "--select", "loss", "--epochs", "1")
    assert (code, "ranks epochs on validation images" in err) == (2, True)


def test_val_with_own_validation_split_is_refused(tinynet, image_folder, cli):
    code, _, err = cli(
        "finetune", tinynet, "--data", image_folder, "--val", "0", "--weights", "none"
    )
    assert (code, "has a validation split; omit it" in err) == (2, True)


def test_folds_of_the_probe_consist_of_groups(photos, tinynet):
    given = {"data": photos, "columns": "label=kind", "val": 0, "recipe": "probe", **QUICK}

    def folds(**options):
        return zoo.finetune(tinynet, **given, **options).record["probe"]["accuracy"]

    assert len(folds()) == 5
    grouped = folds(group_by=r"(p0|p1|p)")
    assert len(grouped) == 3
    assert len(folds(group="patient")) == 5
    # Each class is one group, which no fold can learn without.
    assert folds(group="kind") == []


def test_evaluate_uses_the_groups_of_the_training(photos, tinynet):
    given = {"data": photos, "columns": "label=kind", "epochs": 1, **QUICK}
    run = zoo.finetune(tinynet, group="patient", **given)
    assert run.record["plan"]["data"]["options"] == {"columns": "label=kind", "group": "patient"}
    values = zoo.load(run.path, "cpu").evaluate(photos)
    assert (values["split"], values["images"]) == ("val", run.metrics["val"]["images"])
    with pytest.raises(zoo.UsageError, match="exclude each other"):
        zoo.finetune(tinynet, group="patient", group_by="p", **given)
    with pytest.raises(zoo.UsageError, match=r"group_by \(: missing"):
        zoo.finetune(tinynet, group_by="(", **given)
