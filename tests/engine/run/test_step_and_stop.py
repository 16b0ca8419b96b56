"""`zoo_after_step` and `zoo_should_stop`: each step observed, and a training that a plugin ends."""

import csv
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import zoo
from tests.processes import started
from zoo.modelfile import read_model
from zoo.testing.fixtures import reset_caches

QUICK = {"weights": "none", "device": "cpu", "precision": "fp32", "batch_size": 8, "lr": 0.05}
STEPS = """
    import zoo
    seen = []

    @zoo.hookimpl
    def zoo_after_step(event):
        seen.append(event)

    @zoo.hookimpl
    def zoo_after_epoch(event):
        seen.append(event)
"""
STOP = """
    import zoo

    @zoo.hookimpl
    def zoo_should_stop(event):
        if event.epoch == 2:
            return "two are \\n enough"
"""


@pytest.fixture(autouse=True)
def in_tmp(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def history(run):
    return list(csv.DictReader((run.path / "history.csv").open()))


def tensors(path):
    return read_model(Path(path) / "model.safetensors")[1].tensors


def adjustments(record):
    return [(each["name"], each["value"], each["reason"]) for each in record["adjustments"]]


@pytest.mark.parametrize("train", ["all", "head"])
def test_steps_are_observed_without_effect(tinynet, image_folder, install, train):
    options = {"data": image_folder, "train": train, "epochs": 2, **QUICK, "batch_size": 9}
    alone = zoo.finetune(tinynet, **options)
    install("steps", STEPS)
    reset_caches()
    run = zoo.finetune(tinynet, **options)
    assert run.record["sha256"] == alone.record["sha256"]
    seen = sys.modules["plugin_steps"].seen
    assert [type(event).__name__ for event in seen] == (["StepEnded"] * 3 + ["EpochEnded"]) * 2
    for epoch in (1, 2):
        *steps, end = seen[4 * epoch - 4 : 4 * epoch]
        assert [(each.epoch, each.step, each.steps) for each in steps] == [
            (epoch, number, 3) for number in (1, 2, 3)
        ]
        assert [each.images for each in steps] == [9, 9, 6]
        assert sum(each.loss * each.images for each in steps) / 24 == pytest.approx(end.train_loss)
        assert steps[-1].lr == end.lr
        assert {each.run_id for each in steps} == {run.record["run_id"]}


def test_steps_without_observers_create_no_events(tinynet, image_folder, monkeypatch):
    monkeypatch.delattr("zoo.engine.training.loop.StepEnded")
    run = zoo.finetune(tinynet, data=image_folder, train="all", epochs=1, **QUICK)
    assert len(history(run)) == 1


def test_plugin_stops_a_training_after_an_epoch(tinynet, image_folder, install, caplog):
    whole = zoo.finetune(tinynet, data=image_folder, train="all", epochs=4, **QUICK)
    install("enough", STOP)
    reset_caches()
    with caplog.at_level(logging.WARNING, "zoo"):
        run = zoo.finetune(tinynet, data=image_folder, train="all", epochs=4, **QUICK)
    assert [row["epoch"] for row in history(run)] == ["1", "2"]
    assert adjustments(run.record) == [("epochs", 2, "plugin 'enough': two are enough")]
    assert run.record["plan"] == whole.record["plan"]
    assert [row["train_loss"] for row in history(run)] == [
        row["train_loss"] for row in history(whole)[:2]
    ]
    assert run.metrics["test"]["images"] == 12
    assert caplog.messages == []


def test_plugin_that_stops_leaves_later_phases_out(tinynet, image_folder, install, cli):
    install("enough", STOP)
    given = ["--recipe", "head-then-all", "--epochs", "3,1", "--weights", "none", "--device", "cpu"]
    code, out, err = cli("finetune", tinynet, "--data", image_folder, *given, "--json")
    assert code == 0, err
    record, reason = json.loads(out), "plugin 'enough': two are enough"
    assert adjustments(record) == [("epochs", 2, reason), ("phases", 1, reason)]
    assert f"{reason}; stopping after 2" in err.splitlines()
    assert f"{reason}; stopping after phase 1" in err.splitlines()
    rows = csv.DictReader((Path(record["folder"]) / "history.csv").open())
    assert [row["phase"] for row in rows] == ["head", "head"]
    assert record["metrics"]["test"]["images"] == 12


def test_plugin_stops_after_a_solved_head(tinynet, image_folder, install):
    install("enough", STOP.replace("== 2", "== 1"))
    run = zoo.finetune(tinynet, data=image_folder, recipe="probe", weights="none", device="cpu")
    assert run.record["adjustments"] == []
    assert run.record["probe"]["converged"]


@pytest.mark.parametrize("returned", ["True", "''", "3"])
def test_answer_that_is_no_reason_is_a_warning(tinynet, image_folder, install, caplog, returned):
    install("odd", STOP.replace('"two are \\n enough"', returned))
    with caplog.at_level(logging.WARNING, "zoo"):
        run = zoo.finetune(tinynet, data=image_folder, train="head", epochs=3, **QUICK)
    assert len(history(run)) == 3
    (line,) = caplog.messages
    assert line.startswith("plugin 'odd' failed in zoo_should_stop: TypeError: it returned")


def test_wrapper_can_keep_a_training_going(tinynet, image_folder, install):
    install("enough", STOP)
    install(
        "stubborn",
        """
        import zoo

        @zoo.hookimpl(wrapper=True)
        def zoo_should_stop(event):
            asked = yield
            return []
        """,
    )
    run = zoo.finetune(tinynet, data=image_folder, train="head", epochs=3, **QUICK)
    assert (len(history(run)), run.record["adjustments"]) == (3, [])


@pytest.mark.slow
@pytest.mark.parametrize("recipe", ["all", "head-then-all"])
def test_plugin_stops_all_processes(plainnet, image_folder, install, recipe, tmp_path):
    install("enough", STOP + STEPS.replace("seen.append(event)", "print(event.as_dict())"))
    epochs = "5" if recipe == "all" else "3,1"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "zoo"]
    options = ["--data", str(image_folder), "--recipe", recipe, "--epochs", epochs, "--out", "two"]
    options += ["--weights", "none", "--device", "cpu", "--json"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with started([*command, "finetune", plainnet, *options], **pipes, env=os.environ) as process:
        out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    record = json.loads(out)
    names = ["epochs"] if recipe == "all" else ["epochs", "phases"]
    assert [name for name, _, _ in adjustments(record)] == names
    assert all(torch.isfinite(each).all() for each in tensors("two").values())
    events = [line for line in err.splitlines() if "'run_id'" in line]
    assert events
    assert all("'rank': 0, 'world': 2" in line for line in events)
