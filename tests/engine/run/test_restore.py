"""Resuming with a changed plan, and from a training that is finished or went on from a model."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

import zoo

pytestmark = pytest.mark.usefixtures("in_empty_folder")
QUICK = {"weights": "none", "device": "cpu", "lr": 0.01, "batch_size": 8, "checkpoint_every": 0}


class Loss:
    """Cross-entropy that raises in one of its calls for training; 0 for none.

    Its attributes are private, since public ones are settings that resuming compares.
    """

    def __init__(self, call: int = 0) -> None:
        self._call = call
        self._count = 0

    def __call__(self, logits, labels):
        self._count += torch.is_grad_enabled()
        if self._count == self._call:
            raise KeyboardInterrupt
        return cross_entropy(logits, labels)


def interrupted(backbone, data, call=6, **options):
    """Train into `run` until a call of the loss, after a checkpoint of each step before it."""
    with pytest.raises(KeyboardInterrupt):
        zoo.finetune(backbone, data=data, **{**QUICK, **options}, out="run", loss=Loss(call))


def last_state():
    newest = max(Path("run").glob("checkpoints/checkpoint-*"))
    return json.loads((newest / "state.json").read_text())


def test_changed_plan_is_stored_only_if_the_checkpoint_fits(plainnet, image_folder):
    interrupted(plainnet, image_folder, train="all", epochs=3)
    stored = Path("run/checkpoints/plan.json").read_bytes()
    fewer = Path(shutil.copytree(image_folder, "fewer"))
    for split in ("train", "val", "test"):
        shutil.rmtree(fewer / split / "flag")
    with pytest.raises(zoo.WeightsError, match="does not fit"):
        zoo.finetune(resume="run", data=fewer, override=True, loss=Loss())
    assert Path("run/checkpoints/plan.json").read_bytes() == stored
    assert zoo.finetune(resume="run", loss=Loss()).record["plan"]["phases"][0]["epochs"] == 3


def test_change_of_optimizer_resumes_after_a_second_interrupt(plainnet, image_folder):
    interrupted(plainnet, image_folder, train="all", epochs=3, optimizer="sgd")
    with pytest.raises(KeyboardInterrupt):
        zoo.finetune(resume="run", optimizer="adamw", override=True, loss=Loss(1))
    assert last_state()["plan"]["phases"][0]["optimizer"] == "sgd"
    run = zoo.finetune(resume="run", loss=Loss())
    assert run.record["plan"]["phases"][0]["optimizer"] == "adamw"


def test_recipe_without_the_phase_of_the_checkpoint_is_refused(plainnet, image_folder):
    interrupted(plainnet, image_folder, recipe="head-then-all", epochs=(1, 3), call=8)
    with pytest.raises(zoo.UsageError, match="in phase 2 of its recipe, and this one has 1 phase"):
        zoo.finetune(resume="run", train="all", epochs=3, override=True, loss=Loss())


class Declining:
    """A metric that is worse with each epoch."""

    def __init__(self) -> None:
        self.value = 0.0

    def __call__(self, logits, labels):
        self.value -= 1
        return self.value


def test_best_epoch_before_a_change_of_policy_is_restored_whole(plainnet, image_folder):
    declining = {"metrics": {"declining": Declining()}}
    options = {"train": "head", "epochs": 3, "select": "declining", "keep": 2, **declining}
    data = image_folder
    interrupted(plainnet, data, **options)
    best = load_file("run/model.safetensors")
    run = zoo.finetune(resume="run", train="all", override=True, loss=Loss(), **declining)
    assert [event["best"] for event in last_state()["history"]] == [True, False, False]
    final = load_file(run.path / "model.safetensors")
    assert final.keys() == best.keys()
    assert all(torch.equal(final[name], best[name]) for name in best)


def test_change_of_micro_batch_size_is_applied(plainnet, image_folder):
    interrupted(plainnet, image_folder, train="all", epochs=2)
    zoo.finetune(resume="run", micro_batch_size=4, override=True, loss=Loss())
    assert last_state()["micro_batch_size"] == 4


class InterruptingMetric:
    """A metric that sends SIGINT in one of its calls; 0 for none."""

    def __init__(self, call: int = 0) -> None:
        self.call = call
        self.count = 0

    def __call__(self, logits, labels):
        self.count += 1
        if self.count == self.call:
            os.kill(os.getpid(), signal.SIGINT)
        return 0.0


def test_checkpoints_are_removed_only_after_the_test_split(plainnet, image_folder):
    options = {**QUICK, "data": image_folder, "train": "all", "epochs": 1, "keep": 0}
    options["checkpoint_every"] = 1000
    counted = InterruptingMetric()
    whole = zoo.finetune(plainnet, **options, out="whole", metrics={"own": counted})
    assert not [*Path("whole").glob("checkpoints/checkpoint-*")]
    last = {"own": InterruptingMetric(counted.count)}
    with pytest.raises(KeyboardInterrupt):
        zoo.finetune(plainnet, **options, out="run", metrics=last)
    assert last_state()["epoch"] == 1
    loss = InterruptingMetric()
    run = zoo.finetune(resume="run", metrics={"own": loss})
    assert 0 < loss.count < counted.count
    assert run.record["sha256"] == whole.record["sha256"]
    assert not [*run.path.glob("checkpoints/checkpoint-*")]


def test_finished_training_without_checkpoints_is_refused_more_epochs(plainnet, image_folder):
    zoo.finetune(plainnet, **QUICK, data=image_folder, train="all", epochs=1, keep=0, out="run")
    before = Path("run/run.json").read_bytes()
    with pytest.raises(zoo.UsageError, match=r"finished, and left no checkpoint.*zoo finetune run"):
        zoo.finetune(resume="run", epochs=2)
    assert Path("run/run.json").read_bytes() == before
    shutil.rmtree("run/checkpoints")
    with pytest.raises(zoo.UsageError, match="an earlier zoo trained it"):
        zoo.finetune(resume="run")


def test_training_from_a_model_resumes_in_another_folder(
    plainnet, image_folder, monkeypatch, caplog
):
    zoo.finetune(plainnet, **QUICK, data=image_folder, train="all", epochs=1, out="first")
    options = {**QUICK, "weights": "auto", "data": image_folder, "train": "all", "epochs": 2}
    whole = zoo.finetune("first", **options, out="whole", loss=Loss())
    interrupted("first", image_folder, weights="auto", train="all", epochs=2)
    assert not caplog.messages
    elsewhere = Path("elsewhere")
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    run = zoo.finetune(resume="../run", loss=Loss())
    assert run.record["sha256"] == whole.record["sha256"]


INTERRUPTING_PLUGIN = """
import os, signal
import zoo

@zoo.hookimpl
def zoo_after_epoch(event):
    if event.epoch == EPOCH:
        os.kill(os.getpid(), signal.SIGINT)
"""


def test_command_that_resumes_has_the_plugins_of_the_training(plainnet, image_folder, cli):
    Path("my plugins").mkdir()
    Path("my plugins/own.py").write_text(INTERRUPTING_PLUGIN.replace("EPOCH", "1"))
    given = ["--data", str(image_folder), "--weights", "none", "--train", "all", "--epochs", "2"]
    command = ["--plugin", "my plugins/own.py", "finetune", plainnet, *given, "--out", "run"]
    code, _, err = cli(*command)
    assert code == 130
    resume = "zoo finetune --resume run --plugin 'my plugins/own.py'"
    assert err.splitlines()[-1] == f"zoo: interrupted: resume it with `{resume}`"
    code, out, _ = cli("finetune", "--resume", "run", "--plugin", "my plugins/own.py", "--json")
    assert (code, json.loads(out)["plan"]["phases"][0]["epochs"]) == (0, 2)
    code, out, _ = cli("finetune", "--resume", "run", "--dry-run", "--json")
    assert json.loads(out)["backbone"] == json.loads(Path("run/run.json").read_text())["backbone"]


def test_interrupt_while_observers_see_the_last_epoch_adds_none(plainnet, image_folder, cli):
    Path("own.py").write_text(INTERRUPTING_PLUGIN.replace("EPOCH", "2"))
    options = {**QUICK, "data": image_folder, "train": "all", "lr": 1e-30, "patience": 1}
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    command = ["finetune", plainnet, *given, "--epochs", "9", "--json", "--out"]
    whole = json.loads(cli(*command, "whole")[1])
    assert len(whole["adjustments"]) == 1
    assert cli("--plugin", "own.py", *command, "run")[0] == 130
    assert last_state()["epoch"] == 2
    run = json.loads(cli("finetune", "--resume", "run", "--json")[1])
    assert last_state()["epoch"] == 2
    assert run["sha256"] == whole["sha256"]


def test_training_from_an_unfinished_model_says_that_it_is_one(plainnet, image_folder, caplog):
    interrupted(plainnet, image_folder, train="all", epochs=2)
    zoo.plan("run", data=image_folder)
    zoo.plan(plainnet, data=image_folder, weights="run")
    message = "run/model.safetensors is of a training that is not finished: the best epoch up to "
    assert [text.startswith(message) for text in caplog.messages] == [True, True]


def test_training_whose_backbone_is_not_known_names_the_options_to_repeat(
    plainnet, image_folder, cli
):
    interrupted(plainnet, image_folder, train="all", epochs=2)
    path = Path("run/checkpoints/plan.json")
    stored = {**json.loads(path.read_text()), "name": "own/plainnet", "omitted": []}
    path.write_text(json.dumps(stored))
    code, _, err = cli("finetune", "--resume", "run")
    assert code == 2
    assert "--resume run needs its --plugin or --registry again" in err


def test_time_limit_over_before_training_leaves_nothing(plainnet, image_folder, cli):
    given = ["--data", str(image_folder), "--weights", "none", "--out", "run"]
    code, _, err = cli("finetune", plainnet, *given, "--time-limit", "0.001")
    assert code == 143
    last = "zoo: error: the 0.001 s of --time-limit are over; give a longer time"
    assert err.splitlines()[-1] == last
    assert not Path("run").exists()


FINISHED_PLUGIN = """
import zoo
from zoo.engine.runtime.signals import Alarm

@zoo.hookimpl
def zoo_after_fit(event):
    raise Alarm
"""


def test_time_limit_over_after_training_says_that_it_is_finished(plainnet, image_folder, cli):
    Path("own.py").write_text(FINISHED_PLUGIN)
    options = {**QUICK, "data": image_folder, "train": "all", "epochs": 1, "time_limit": 1000}
    given = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    code, _, err = cli("--plugin", "own.py", "finetune", plainnet, *given, "--out", "run")
    assert (code, err.splitlines()[-1]) == (
        143,
        "zoo: error: the 1000 s of --time-limit are over; run is finished",
    )
