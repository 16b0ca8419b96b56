"""Installed observers: their events, and isolation of the training from them."""

import dataclasses
import hashlib
import json
import logging
import random
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import zoo
from tests.processes import started
from zoo import hookspecs
from zoo.data.decode import decode
from zoo.data.transforms import prepare
from zoo.engine.run.observers import Observers, isolated_rng_and_modes
from zoo.options.arguments import in_python
from zoo.registry.registry import load_registry
from zoo.testing.fixtures import reset_caches

QUICK = {"weights": "none", "device": "cpu", "lr": 0.01, "batch_size": 8}
DIVERGE = {**QUICK, "lr": 1e18, "optimizer": "sgd", "schedule": "constant"}
CPU = torch.device("cpu")
HOOKS = [
    name
    for name in vars(hookspecs)
    if name.startswith("zoo_") and not name.startswith("zoo_register_")
]


def observer(body: str, setup: str = "") -> str:
    """Return the source of a plugin with the same body in every hook."""
    lines = ["import zoo", *setup.splitlines()]
    for hook in HOOKS:
        lines += ["@zoo.hookimpl", f"def {hook}(event):"]
        lines += [f"    {line}" for line in body.splitlines()]
    return "\n".join(lines)


@pytest.fixture(autouse=True)
def in_tmp(tmp_path, monkeypatch):
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)


@pytest.fixture
def watcher(install):
    """Install a plugin that records events, and return a function that returns them."""
    install("watcher", observer("seen.append(event)", "seen = []"))

    def seen() -> list:
        return sys.modules["plugin_watcher"].seen

    return seen


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


@pytest.mark.parametrize("recipe", ["head", "all"])
def test_first_batch_equals_the_network_input(tinynet, image_folder, watcher, recipe):
    zoo.finetune(tinynet, data=image_folder, recipe=recipe, epochs=2, **QUICK)
    (first,) = (event for event in watcher() if isinstance(event, zoo.FirstBatchRead))
    assert first.images.shape == (8, 32, 32, 3)
    assert first.images.dtype == np.uint8
    preprocess = zoo.get(tinynet).preprocess
    known = {
        prepare(decode(path), preprocess).permute(1, 2, 0).numpy().tobytes(): path.parent.name
        for path in (image_folder / "train").rglob("*.jpg")
    }
    names = [known[image.tobytes()] for image in first.images]
    assert names == [first.classes[label] for label in first.labels]


def test_first_batch_is_augmented(tinynet, image_folder, watcher):
    for augment in ("none", "erase:1"):
        zoo.finetune(tinynet, data=image_folder, recipe="all", epochs=1, augment=augment, **QUICK)
    plain, erased = (e for e in watcher() if isinstance(e, zoo.FirstBatchRead))
    assert plain.labels == erased.labels
    same = (plain.images == erased.images).all(axis=3)
    assert not same.all(axis=(1, 2)).any()
    assert same.any(axis=(1, 2)).all()


class Prepared(Dataset):
    """Images transformed by the user, and one with values outside those of images."""

    def __init__(self, root: Path) -> None:
        self.paths = sorted(root.rglob("*.jpg"))
        self.classes = sorted({path.parent.name for path in self.paths})
        self.targets = [self.classes.index(path.parent.name) for path in self.paths]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int):
        if index == 0:
            return torch.linspace(-1e3, 1e3, 32).repeat(3, 32, 1), self.targets[0]
        return zoo.transform("tiny/tinynet")(self.paths[index]), self.targets[index]


@pytest.mark.parametrize("loader", [False, True])
def test_first_batch_of_floats_is_denormalized(tinynet, image_folder, watcher, loader):
    data = {split: Prepared(image_folder / split) for split in ("train", "val")}
    if loader:
        data = {split: DataLoader(part, batch_size=24) for split, part in data.items()}
    zoo.finetune(tinynet, data=data, recipe="all", epochs=1, **{**QUICK, "batch_size": 24})
    (first,) = (event for event in watcher() if isinstance(event, zoo.FirstBatchRead))
    preprocess = zoo.get(tinynet).preprocess
    shown = {image.tobytes() for image in first.images}
    paths = sorted((image_folder / "train").rglob("*.jpg"))[1:]
    known = {prepare(decode(p), preprocess).permute(1, 2, 0).numpy().tobytes() for p in paths}
    assert known < shown
    (odd,) = (np.frombuffer(data, np.uint8).reshape(32, 32, 3) for data in shown - known)
    assert odd[0, :, 0].tolist()[:15] == [0] * 15
    assert odd[0, :, 0].tolist()[-15:] == [255] * 15


def test_first_batch_without_observers_is_not_denormalized(
    tinynet, image_folder, install, monkeypatch
):
    install("quiet", "import zoo\n\n@zoo.hookimpl\ndef zoo_after_fit(event): pass\n")
    made = []
    monkeypatch.setattr("zoo.engine.run.observers.denormalize", lambda *given: made.append(given))
    zoo.finetune(tinynet, data=image_folder, epochs=1, **QUICK)
    assert not made


@pytest.mark.parametrize("recipe", ["head", "all", "head-then-all"])
def test_observers_do_not_affect_training(tinynet, image_folder, install, recipe, caplog):
    def train() -> str:
        random.seed(1)
        np.random.seed(1)
        options = {"recipe": recipe, "augment": None if recipe == "head" else "crop,flip"}
        return digest(zoo.finetune(tinynet, data=image_folder, epochs=2, **options, **QUICK))

    alone, drawn = train(), random.random()
    install(
        "meddler",
        observer(
            """
random.random(); np.random.rand(); torch.rand(3); torch.manual_seed(7)
torch.set_grad_enabled(False)
for change in CHANGES:
    try:
        change(event)
    except (TypeError, ValueError, AttributeError):
        refused.append(change)
        """.strip(),
            """
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
            """,
        ),
    )
    exits = observer("import torch; torch.rand(5)\nraise SystemExit(9)")
    install("exits", exits)
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


@pytest.mark.parametrize("hook", HOOKS)
def test_interrupt_in_an_observer_is_an_interrupt(
    tinynet, image_folder, install, cli, hook, tmp_path, caplog, monkeypatch
):
    monkeypatch.setattr("zoo.registry.plugin_code.HANGING", 0.0)
    install(
        "slow",
        f"""
        import os, signal, time
        import zoo

        @zoo.hookimpl
        def {hook}(event):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)
        """,
    )
    lr = "1e18" if hook == "zoo_on_error" else "0.01"
    options = ["--weights", "none", "--epochs", "2", "--optimizer", "sgd", "--lr", lr]
    with caplog.at_level(logging.WARNING, "zoo"):
        code, _, err = cli("finetune", tinynet, "--data", image_folder, *options)
    assert code == 130, err
    assert "slow" not in caplog.text  # it has not failed
    kept = {
        "zoo_after_fit": "nothing half-written is left",
        "zoo_on_error": "nothing half-written is left",
    }
    resumed = "resume it with `zoo finetune --resume runs/tinynet-1`"
    start, _, rest = err.splitlines()[-1].partition(" in ")
    assert start.startswith("zoo: interrupted: after ")
    plugin = f"{hook} of plugin 'slow', which ZOO_PLUGINS=-tensorboard,-regression,-report,-slow"
    assert rest == f"{plugin} switches off; {kept.get(hook, resumed)}"
    run = tmp_path / "runs" / "tinynet-1"
    checkpoints = len([*run.glob("checkpoints/checkpoint-*")])
    assert checkpoints == (hook not in ("zoo_before_fit", "zoo_on_first_batch", "zoo_on_error"))
    assert (run / "run.json").exists() is (hook == "zoo_after_fit")
    assert (run / "checkpoints" / "plan.json").exists() is (hook != "zoo_on_error")


@pytest.mark.parametrize("hook", ["zoo_before_fit", "zoo_after_step", "zoo_after_epoch"])
def test_interrupt_that_an_observer_catches_stops_training(tinynet, image_folder, install, hook):
    options = {**QUICK, "train": "all", "epochs": 2}
    whole = zoo.finetune(tinynet, data=image_folder, **options)
    install(
        "careless",
        f"""
        import os, signal, time
        import zoo

        @zoo.hookimpl
        def {hook}(event):
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(5)
            except:
                pass
        """,
    )
    reset_caches()
    with pytest.raises(KeyboardInterrupt) as interrupted:
        zoo.finetune(tinynet, data=image_folder, **options, out="parts")
    assert interrupted.value.__notes__ == ["resume it with `zoo finetune --resume parts`"]
    (checkpoint,) = Path("parts/checkpoints").glob("checkpoint-*")
    state = json.loads((checkpoint / "state.json").read_text())
    assert (state["epoch"], state["step"]) == ((1, 0) if hook == "zoo_after_epoch" else (1, 1))
    zoo.configure(without=["careless"])
    resumed = zoo.finetune(resume="parts")
    names = [run.path / "model.safetensors" for run in (whole, resumed)]
    assert names[0].read_bytes() == names[1].read_bytes()


@pytest.mark.parametrize("how", ["interrupt", "diverge"])
def test_files_of_observers_stay_and_out_is_accepted_again(
    tinynet, image_folder, install, cli, how, tmp_path
):
    install(
        "notes",
        """
        import os, signal
        from pathlib import Path
        import zoo

        @zoo.hookimpl
        def zoo_before_fit(event):
            with (Path(event.folder) / "notes.txt").open("a") as file:
                file.write("begun\\n")
            if "INTERRUPT" in os.environ:
                os.kill(os.getpid(), signal.SIGINT)
        """,
    )
    given = ["--weights", "none", "--epochs", "1", "--train", "head", "--device", "cpu"]
    command = ["finetune", tinynet, "--data", image_folder, "--out", "out", *given]
    bad = ["--optimizer", "sgd", "--lr", "1e18", "--schedule", "constant", "--epochs", "3"]
    for number in (1, 2):
        with pytest.MonkeyPatch.context() as patch:
            if how == "interrupt":
                patch.setenv("INTERRUPT", "1")
            code, _, err = cli(*command, *(bad if how == "diverge" else ()))
        assert code == (130 if how == "interrupt" else 8), err
        kept = "out keeps what plugins wrote (notes.txt" + ", unfinished-1" * (number - 1)
        line = f"{kept}), and can be given as --out again"
        if how == "interrupt":
            line = "resume it with `zoo finetune --resume out`"
        assert err.splitlines()[-1].endswith(line)
        assert "half-written" not in err
    code, _, err = cli(*command)
    assert (code, "unfinished training is in unfinished-2" in err) == (0, True), err
    out = tmp_path / "out"
    assert (out / "notes.txt").read_text() == "begun\n"
    assert {(out / f"unfinished-{n}" / "notes.txt").read_text() for n in (1, 2)} == {"begun\n"}
    assert not (out / ".claim").exists()
    code, _, err = cli(*command)
    assert (code, "is not empty" in err) == (2, True)


def test_folder_of_someone_else_is_refused(tinynet, image_folder, cli, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    code, _, err = cli("finetune", tinynet, "--data", image_folder, "--out", "out")
    assert (code, "out is not empty" in err) == (2, True)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_sigterm_in_an_observer_terminates(tinynet, image_folder, install, tmp_path):
    install(
        "slow",
        """
        import time
        import zoo

        @zoo.hookimpl
        def zoo_after_epoch(event):
            print("called", flush=True)
            time.sleep(60)
        """,
    )
    options = ["--weights", "none", "--epochs", "2"]
    command = [sys.executable, "-m", "zoo", "finetune", tinynet, "--data", str(image_folder)]
    with started([*command, *options], cwd=tmp_path, stderr=subprocess.PIPE) as process:
        assert "called\n" in process.stderr
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
        assert process.wait(60) == 143, rest
    assert [*(tmp_path / "runs" / "tinynet-1").glob("checkpoints/checkpoint-*")]


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


def test_events_are_deeply_frozen():
    inside = {("odd", 1): [1, {2: {"deep": [{3}]}}], None: bytearray(b"abc"), 5: {"a"}}
    event = zoo.FitStarted("a/b", inside, "/run")
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.folder = "/other"
    with pytest.raises(TypeError):
        event.plan["new"] = 1
    one, two = event.plan[("odd", 1)]
    with pytest.raises(TypeError):
        two[2]["deep"] = ()
    inside[("odd", 1)][1][2]["deep"][0].add(4)
    inside[None][0] = 0
    inside[5].add("b")
    assert one == 1
    assert two[2]["deep"] == (frozenset({3}),)
    assert event.plan[None] == b"abc"
    assert event.plan[5] == frozenset({"a"})


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
