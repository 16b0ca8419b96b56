"""SIGKILL at random moments of a training, which is resumed to the same bytes."""

from __future__ import annotations

import random
import re
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest

import zoo
from tests.engine.run.interrupting import InterruptingLoss
from tests.faults.conftest import zoo_command
from tests.processes import started
from zoo.engine.training import checkpoints
from zoo.engine.training.checkpoints import list_checkpoints

pytestmark = pytest.mark.faults

# At least so many kills, after each of which training went on from another point.
KILLS = 8
FEW = 1
# Checkpoints between a start and the kill: with 160 in a training, there is time for all.
MOST_CHECKPOINTS = 8
SECONDS = 240

RECIPES = {
    "all": ["--train", "all", "--epochs", "40"],
    "head": ["--train", "head", "--epochs", "40"],
    "head-then-all": ["--recipe", "head-then-all", "--epochs", "20,20"],
    "stages": ["--train", "stages:1", "--epochs", "40", "--augment", "flip", "--workers", "1"],
}
SETTINGS = ["--batch-size", "8", "--lr", "0.01", "--seed", "3"]


@pytest.mark.parametrize(
    ("recipe", "kills"),
    [pytest.param("all", FEW, marks=pytest.mark.slow), *((name, KILLS) for name in RECIPES)],
)
def test_killed_training_resumes_to_the_same_bytes(recipe, kills, finetune):
    options = [*RECIPES[recipe], *SETTINGS]
    subprocess.run(finetune(*options, "--out", "whole"), check=True, capture_output=True)
    points = train_killed(finetune(*options, "--out", "killed", "--checkpoint-every", "0"), kills)
    print(f"{recipe}: {len(points)} kills, {len(set(points))} distinct points: {points}")
    assert len(set(points)) >= kills
    for name in ("model.safetensors", "history.csv"):
        whole, killed = (without_seconds(Path(folder, name)) for folder in ("whole", "killed"))
        assert whole == killed, name
    assert not [*Path("killed").rglob(".zoo-*")]


def train_killed(command: list[str], least: int) -> list[str]:
    """Train, killed at random moments, until it is finished; return where it was resumed.

    Args:
        command: that trains.
        least: number of kills after which there is one more.
    """
    generator, points, kills = random.Random(0), [], 0
    folder = Path("killed/checkpoints")
    while True:
        errors = Path(f"errors-{kills}")
        with errors.open("w") as stream, started(command, stderr=stream) as process:
            if kills <= least:
                # The first kill is before the first checkpoint; that training starts again.
                wait_for_checkpoints(folder, process, generator.randint(1, MOST_CHECKPOINTS))
                time.sleep(generator.random() * 0.03)
                process.kill()
            code = process.wait(SECONDS)
        points += re.findall(r"resuming killed after (.*)", errors.read_text())
        if code == 0:
            break
        assert code == -signal.SIGKILL, errors.read_text()
        kills += 1
        command = zoo_command("finetune", "--resume", "killed", "--checkpoint-every", "0")
    assert kills > least, "the training was finished before it was killed often enough"
    assert len(points) == kills
    return points


def wait_for_checkpoints(folder: Path, process: subprocess.Popen, number: int) -> None:
    last, deadline = newest(folder) + number, time.monotonic() + SECONDS
    while newest(folder) < last and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.003)


def newest(folder: Path) -> int:
    return max((number for number, _ in list_checkpoints(folder)), default=0)


def without_seconds(path: Path) -> bytes:
    """Return the content of a file; of the history without its last column."""
    data = path.read_bytes()
    return re.sub(rb",[^,\n]*\n", b"\n", data) if path.suffix == ".csv" else data


def test_training_killed_before_its_first_checkpoint_starts_again(finetune):
    options = ["--train", "all", "--epochs", "2", *SETTINGS]
    subprocess.run(finetune(*options, "--out", "whole"), check=True, capture_output=True)
    with started(finetune(*options, "--out", "killed"), stderr=subprocess.DEVNULL) as process:
        while not Path("killed/checkpoints/plan.json").exists():
            assert process.poll() is None
            time.sleep(0.003)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert not Path("killed/model.safetensors").exists()
    again = zoo_command("finetune", "--resume", "killed")
    done = subprocess.run(again, check=True, capture_output=True, text=True)
    assert "killed has no checkpoint: training from the start" in done.stderr
    models = [Path(name, "model.safetensors").read_bytes() for name in ("whole", "killed")]
    assert models[0] == models[1]


def forget_optimizer(snapshot):
    return snapshot.without_optimizer()


def forget_generators(snapshot):
    class Forgetful(type(snapshot)):
        def restore_generators(self, device, rank=0):
            pass

    return Forgetful(snapshot.tensors, snapshot.plain)


def forget_step(snapshot):
    return replace(snapshot, plain={**snapshot.plain, "step": 0, "batches": 0})


@pytest.mark.slow
@pytest.mark.parametrize("forget", [None, forget_optimizer, forget_generators, forget_step])
def test_resume_that_forgets_state_gives_other_bytes(forget, tinynet, image_folder, monkeypatch):
    """The comparison of bytes finds a training that is not resumed completely."""
    options = {"data": image_folder, "weights": "none", "train": "all", "epochs": 2, "lr": 0.01}
    options |= {"batch_size": 8, "device": "cpu", "optimizer": "adamw"}
    whole = zoo.finetune(tinynet, **options, loss=InterruptingLoss(), out="whole")
    with pytest.raises(KeyboardInterrupt):
        zoo.finetune(tinynet, **options, loss=InterruptingLoss(3), out="parts")
    if forget is not None:
        read = checkpoints.read_checkpoint
        monkeypatch.setattr(checkpoints, "read_checkpoint", lambda path: forget(read(path)))
    parts = zoo.finetune(resume="parts", loss=InterruptingLoss())
    assert (parts.record["sha256"] == whole.record["sha256"]) is (forget is None)
