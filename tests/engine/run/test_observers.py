"""Installed observers: their events, and isolation of the training from them."""

import hashlib
import json
import logging
import random
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import zoo
from tests.engine.run.observer_source import observer
from zoo.engine.run.observers import Observers, isolated_rng_and_modes
from zoo.options.arguments import in_python
from zoo.registry.registry import load_registry
from zoo.testing.fixtures import reset_caches

pytestmark = pytest.mark.usefixtures("in_empty_folder")
QUICK = {"weights": "none", "device": "cpu", "lr": 0.01, "batch_size": 8}
DIVERGE = {**QUICK, "lr": 1e18, "optimizer": "sgd", "schedule": "constant"}
CPU = torch.device("cpu")


def digest(run) -> str:
    return hashlib.sha256((run.path / "model.safetensors").read_bytes()).hexdigest()


def test_events_of_a_training(tinynet, image_folder, watcher):
    run = zoo.finetune(tinynet, data=image_folder, recipe="head-then-all", epochs=(2, 1), **QUICK)
    started, first, *others, collected, ended = watcher()
    assert isinstance(collected, zoo.ResultsCollected)
    assert len(collected.results["samples"]["val"]["name"]) == 12
    steps = [event for event in others if isinstance(event, zoo.StepEnded)]
    # Of `zoo_after_epoch` and of `zoo_should_stop`.
    epochs, asked = ([e for e in others if e not in steps][start::2] for start in (0, 1))
    assert epochs == asked
    assert len(steps) == 3 * 3
    assert isinstance(started, zoo.FitStarted)
    assert isinstance(first, zoo.FirstBatchRead)
    assert [type(event) for event in epochs] == [zoo.EpochEnded] * 3
    assert isinstance(ended, zoo.FitEnded)
    assert started.backbone == ended.backbone == tinynet
    assert started.folder == ended.folder == str(run.path.absolute())
    assert started.plan["seed"] == 0
    events = [started, first, *others, collected, ended]
    assert {(event.run_id, event.rank, event.world) for event in events} == {
        (run.record["run_id"], 0, 1)
    }
    assert re.fullmatch("[0-9a-f]{32}", run.record["run_id"])
    for event in events:
        assert json.loads(json.dumps(event.as_dict()))["run_id"] == started.run_id
    assert started.plan["classes"] == first.classes == ("flag", "mammal", "playing_card")
    assert [event.phase for event in epochs] == ["head", "head", "all"]
    for split in ("val", "test"):
        assert [list(row) for row in ended.metrics[split]["confusion"]] == run.metrics[split][
            "confusion"
        ]
        assert tuple(ended.metrics[split]["per_class"]) == first.classes


# Hooks that draw random numbers, and try to change their event.
MEDDLING = """\
random.random(); np.random.rand(); torch.rand(3); torch.manual_seed(7)
torch.set_grad_enabled(False)
for change in CHANGES:
    try:
        change(event)
    except (TypeError, ValueError, AttributeError):
        refused.append(change)
"""
CHANGES = """\
import random
import numpy as np
import torch
refused = []

def each(event):
    return vars(event).items()

def fields(event):
    for name, value in each(event):
        setattr(event, name, None)

def mappings(event):
    for name, value in each(event):
        if hasattr(value, "items"):
            value["seed"] = value["loss"] = value["val"] = 5
    raise TypeError

def images(event):
    getattr(event, "images", np.empty(0)).setflags(write=True)
    getattr(event, "images", b"")[0] = 0

CHANGES = [fields, mappings, images]
"""


@pytest.mark.parametrize("recipe", ["head", "all", "head-then-all"])
def test_observers_do_not_affect_training(tinynet, image_folder, install, recipe, caplog):
    def train() -> str:
        random.seed(1)
        np.random.seed(1)
        options = {"recipe": recipe, "augment": None if recipe == "head" else "crop,flip"}
        return digest(zoo.finetune(tinynet, data=image_folder, epochs=2, **options, **QUICK))

    alone, drawn = train(), random.random()
    install("meddler", observer(MEDDLING, CHANGES))
    install("exits", observer("import torch; torch.rand(5)\nraise SystemExit(9)"))
    install("raises", observer("import numpy; numpy.random.rand()\nraise RuntimeError('no')"))
    reset_caches()
    with caplog.at_level(logging.WARNING, "zoo"):
        assert train() == alone
    assert random.random() == drawn
    refused = sys.modules["plugin_meddler"].refused
    epochs = 4 if recipe == "head-then-all" else 2
    # Each change, in every hook but `zoo_on_error`: four once, two per epoch, and three steps.
    assert len(refused) == 3 * (4 + epochs * (2 + 3))
    # One warning for each hook and plugin, and one for repeated failures.
    messages = [record.getMessage() for record in caplog.records]
    for name in ("exits", "raises"):
        assert len([line for line in messages if repr(name) in line]) == 7 + 3
        assert f"plugin {name!r} failed {epochs} times in zoo_after_epoch" in messages
    assert "plugin 'exits' failed in zoo_on_first_batch: SystemExit: 9" in messages
    assert not [line for line in messages if "meddler" in line]


def test_failing_observers_do_not_replace_the_error(tinynet, image_folder, install, watcher):
    with pytest.raises(zoo.Diverged) as alone:
        zoo.finetune(tinynet, data=image_folder, epochs=3, **DIVERGE)
    assert isinstance(watcher()[-1], zoo.FitFailed)
    assert (watcher()[-1].kind, in_python(watcher()[-1].message)) == ("Diverged", str(alone.value))
    assert watcher()[-1].folder == str(Path("runs/tinynet-1").absolute())
    install("raises", observer("raise RuntimeError('an observer that fails')"))
    install("exits", observer("import sys; sys.exit(0)"))
    reset_caches()
    with pytest.raises(zoo.Diverged) as observed:
        zoo.finetune(tinynet, data=image_folder, epochs=3, **DIVERGE)
    assert str(observed.value) == str(alone.value).replace("tinynet-1", "tinynet-2")
    assert observed.value.__cause__ is alone.value.__cause__ is None
    left = {str(path) for path in Path("runs").rglob("*") if path.is_file()}
    batch = "checkpoints/diverged-batch.safetensors"
    assert left == {f"runs/tinynet-{number}/{batch}" for number in (1, 2)}


def test_observer_without_event_and_error_without_message(install, caplog, capsys):
    install(
        "brief",
        """
        import zoo
        called = []

        @zoo.hookimpl
        def zoo_after_fit():
            print("called")
            called.append(1)

        class Speechless(Exception):
            def __str__(self):
                raise ValueError

        @zoo.hookimpl
        def zoo_before_fit(event):
            raise Speechless
        """,
    )
    observers = Observers(load_registry().host, CPU)
    with caplog.at_level(logging.WARNING, "zoo"):
        observers.notify("zoo_after_fit", zoo.FitEnded("a/b", {}, 1.0, "/run"))
        observers.notify("zoo_before_fit", zoo.FitStarted("a/b", {}, "/run"))
        observers.close()
    assert sys.modules["plugin_brief"].called == [1]
    assert caplog.messages == ["plugin 'brief' failed in zoo_before_fit: Speechless"]
    # stdout is reserved for the JSON of a command.
    assert capsys.readouterr() == ("", "called\n")


def test_isolated_rng_and_modes_restores_after_interrupt():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    left = torch.inference_mode()

    def interrupted() -> None:
        with isolated_rng_and_modes(CPU):
            torch.rand(1)
            left.__enter__()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.is_grad_enabled()
    assert not torch.is_inference_mode_enabled()
    with torch.no_grad(), isolated_rng_and_modes(CPU):
        assert not torch.is_grad_enabled()
        torch.set_grad_enabled(True)
    assert torch.is_grad_enabled()
    with torch.no_grad():
        with isolated_rng_and_modes(CPU):
            torch.set_grad_enabled(True)
        assert not torch.is_grad_enabled()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_isolated_rng_and_modes_restores_gpu_generator():
    device = torch.device("cuda")
    torch.zeros(1, device=device)
    before = torch.cuda.get_rng_state()
    with isolated_rng_and_modes(device):
        torch.rand(5, device=device)
    assert torch.equal(torch.cuda.get_rng_state(), before)
