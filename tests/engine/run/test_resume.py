"""Resuming: after interrupts and kills, to the same bytes as without them."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import zoo
from tests.engine.run.interrupting import InterruptingLoss, finetune_interrupted, history
from tests.processes import started
from zoo.modelfile import read_model

pytestmark = pytest.mark.usefixtures("in_empty_folder")
QUICK = {"weights": "none", "device": "cpu", "lr": 0.01, "batch_size": 8}

# An epoch has three steps of 8 images, and a step two calls, since there is an auxiliary head.
CASES = {
    "all": ({"train": "all", "epochs": 3, "augment": "flip"}, (2, 2, 3)),
    "head": ({"train": "head", "epochs": 3}, (1, 3, 2)),
    "head-then-all": ({"recipe": "head-then-all", "epochs": (2, 2)}, (2, 6)),
    "stages": ({"train": "stages:1", "epochs": 2, "optimizer": "sgd", "workers": 1}, (2, 2)),
    "micro-batches": ({"train": "all", "epochs": 2, "micro_batch_size": 4}, (2, 3)),
    "patience": ({"train": "all", "epochs": 9, "lr": 1e-9, "patience": 2, "val": 0.3}, (4,)),
}


@pytest.mark.parametrize("case", CASES)
def test_resumed_training_equals_an_uninterrupted_one(case, tinynet, image_folder):
    given, calls = CASES[case]
    data = image_folder / "train" if "val" in given else image_folder
    options = {**QUICK, "data": data, **given}
    whole = zoo.finetune(tinynet, loss=InterruptingLoss(), **options, out="whole")
    run, points = finetune_interrupted(tinynet, calls, **options, out="parts")
    assert len({*points}) == len(calls)
    assert any(step for _, _, step in points)
    assert (run.path / "model.safetensors").read_bytes() == (
        whole.path / "model.safetensors"
    ).read_bytes()
    assert run.metrics == whole.metrics
    assert run.record["adjustments"] == whole.record["adjustments"]
    assert run.record["duplicates"] == whole.record["duplicates"]
    assert history(run) == history(whole)
    assert run.record["seconds"] > 0


def test_segmentation_resumes_to_the_same_bytes(install, tmp_path):
    from tests.tasks.segmentation.conftest import NETWORKS
    from tests.tasks.segmentation.scenes import write_scenes

    install("dense", NETWORKS)
    scenes = write_scenes(tmp_path / "scenes", 10, seed=1)
    options = {"weights": "none", "device": "cpu", "data": scenes, "epochs": 2, "batch_size": 4}
    options |= {"train": "all", "input_size": 32, "keep": 0}
    whole = zoo.finetune("dense/tinyfcn", **options, out="whole")
    killed = [sys.executable, "-m", "zoo", "finetune", "dense/tinyfcn", "--out", "parts"]
    killed += [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    with started([*killed, "--checkpoint-every", "0"], stderr=subprocess.DEVNULL) as process:
        wait_for_checkpoint(Path("parts"), process)
        process.kill()
    run = zoo.finetune(resume="parts")
    assert run.record["sha256"] == whole.record["sha256"]
    assert run.metrics == whole.metrics
    assert not [*run.path.glob("checkpoints/checkpoint-*")]


def wait_for_checkpoint(folder: Path, process) -> None:
    deadline = time.monotonic() + 120
    while not [*folder.glob("checkpoints/checkpoint-*/manifest.json")]:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_writes_a_checkpoint_and_the_line_says_how_to_resume(
    number, code, tinynet, image_folder
):
    command = [sys.executable, "-m", "zoo", "finetune", tinynet, "--data", str(image_folder)]
    endless = ["--weights", "none", "--epochs", "100000", "--out", "my run"]
    with started([*command, *endless], stderr=subprocess.PIPE) as process:
        next(line for line in process.stderr if line.startswith("all "))
        process.send_signal(number)
        rest = process.stderr.read()
        assert process.wait(60) == code, rest
    assert "Traceback" not in rest
    word = "interrupted" if code == 130 else "terminated"
    last = rest.splitlines()[-1]
    assert last == f"zoo: {word}: resume it with `zoo finetune --resume 'my run'`"
    assert len([*Path("my run").glob("checkpoints/checkpoint-*")]) == 1
    (done,) = zoo.predict("my run", image_folder / "test" / "flag" / "x.png")
    assert "error" in done


def test_unfinished_training_predicts_and_says_that_it_is_one(tinynet, image_folder, caplog):
    options = {**QUICK, "train": "all", "data": image_folder, "epochs": 9, "out": "run"}
    with pytest.raises(KeyboardInterrupt):
        zoo.finetune(tinynet, **options, loss=InterruptingLoss(9))
    card, _ = read_model(Path("run/model.safetensors"))
    assert card.settings["unfinished"] == "epoch 2 of 9 of all"
    image = str(next((image_folder / "test" / "flag").iterdir()))
    (answer,) = zoo.predict("run", image)
    assert answer["predictions"]
    assert caplog.messages == [
        "run/model.safetensors is of a training that is not finished: the best epoch up to epoch 2 "
        "of 9 of all"
    ]


def test_training_without_a_finished_epoch_has_no_model(tinynet, image_folder):
    options = {**QUICK, "train": "all", "data": image_folder, "epochs": 9, "out": "run"}
    with pytest.raises(KeyboardInterrupt):
        zoo.finetune(tinynet, **options, loss=InterruptingLoss(2))
    for use in (zoo.load, zoo.plan):
        with pytest.raises(zoo.WeightsError, match=r"run has no model yet.*--resume run`"):
            use("run")


def test_training_without_a_checkpoint_starts_again_from_its_plan(tinynet, image_folder, capsys):
    options = {**QUICK, "train": "all", "data": image_folder, "epochs": 1}
    whole = zoo.finetune(tinynet, **options, out="whole")
    shutil.copytree("whole", "begun")
    for path in ("run.json", "model.safetensors", "history.csv"):
        Path("begun", path).unlink()
    shutil.rmtree(next(Path("begun").glob("checkpoints/checkpoint-*")))
    run = zoo.finetune(resume="begun", quiet=False)
    assert "begun has no checkpoint: training from the start" in capsys.readouterr().err
    assert run.record["sha256"] == whole.record["sha256"]


def test_finished_training_is_left_alone_and_goes_on_for_more_epochs(
    tinynet, image_folder, cli, monkeypatch
):
    options = {**QUICK, "train": "all", "data": image_folder, "schedule": "constant"}
    run = zoo.finetune(tinynet, **options, epochs=2, out="run")
    before = {path: path.stat().st_mtime_ns for path in run.path.rglob("*")}
    folder = run.path.absolute()
    again = zoo.finetune(resume="run")
    assert again.record == run.record
    code, out, err = cli("finetune", "--resume", folder, "--json")
    assert (code, json.loads(out)["sha256"]) == (0, run.record["sha256"])
    assert "is finished" in err
    monkeypatch.chdir(folder.parent)
    assert {path: path.stat().st_mtime_ns for path in run.path.rglob("*")} == before
    longer = zoo.finetune(resume="run", epochs=3)
    whole = zoo.finetune(tinynet, **options, epochs=3, out="whole")
    assert history(longer) == history(whole)
    assert longer.record["sha256"] != run.record["sha256"]
    assert longer.metrics == whole.metrics
    assert longer.record["run_id"] == run.record["run_id"]


def test_folder_of_an_interrupted_training_is_not_overwritten(interrupted, tinynet, image_folder):
    folder, options = interrupted
    with pytest.raises(zoo.UsageError, match=r"--resume run|resume") as caught:
        zoo.finetune(tinynet, **options, out=folder)
    assert "not empty" in str(caught.value)


def test_folder_without_a_training_is_refused():
    Path("empty").mkdir()
    with pytest.raises(zoo.UsageError, match="empty: it is not a run folder"):
        zoo.finetune(resume="empty")
    with pytest.raises(zoo.UsageError, match="missing: it does not exist"):
        zoo.finetune(resume="missing")


def test_backbone_or_training_is_required(cli):
    code, _, err = cli("finetune")
    assert code == 2
    assert "no backbone is named; give NAME, or --resume RUN" in err


@pytest.mark.slow
def test_time_limit_stops_with_a_checkpoint(tinynet, image_folder, zoo_process):
    """In a process of its own: the time limit of a test is an alarm too."""
    here = str(Path.cwd())
    options = ["--data", str(image_folder), "--weights", "none", "--out", "run"]
    done = zoo_process(
        "finetune", tinynet, *options, "--epochs", "100000", "--time-limit", "8s", cwd=here
    )
    assert done.returncode == 143
    assert done.stderr.splitlines()[-1] == (
        "zoo: error: the 8 s of --time-limit are over; resume it with `zoo finetune --resume run`"
    )
    with pytest.raises(zoo.UsageError, match="epochs: 100000, now 1"):
        zoo.finetune(resume="run", epochs=1)


def test_divergence_names_its_step_and_keeps_the_last_finite_checkpoint(tinynet, image_folder):
    class Exploding(InterruptingLoss):
        def __call__(self, logits, labels):
            loss = super().__call__(logits, labels)
            return loss * float("inf") if self.count == 9 and torch.is_grad_enabled() else loss

    options = {**QUICK, "train": "all", "data": image_folder, "epochs": 3, "out": "run"}
    with pytest.raises(zoo.Diverged, match="step 2 of epoch 2 of all, at a learning rate of"):
        zoo.finetune(tinynet, **options, checkpoint_every=0, loss=Exploding())
    (checkpoint,) = Path("run").glob("checkpoints/checkpoint-*")
    state = json.loads((checkpoint / "state.json").read_text())
    assert (state["epoch"], state["step"]) == (2, 1)
    batch = Path("run/checkpoints/diverged-batch.safetensors")
    tensors = load_file(batch)
    assert tensors["inputs"].shape == (8, 3, 32, 32)
    assert tensors["targets"].shape == (8,)
    run = zoo.finetune(resume="run", loss=InterruptingLoss(), override=True)
    assert run.record["metrics"]["val"]["images"] == 12
