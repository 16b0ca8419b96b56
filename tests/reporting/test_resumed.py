"""Reports after an interruption and of several processes: those of one that ran through."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import zoo
from tests.engine.run.interrupting import InterruptingLoss, finetune_interrupted
from tests.processes import started
from tests.reporting.test_report import check_page

pytestmark = pytest.mark.slow
QUICK = {"weights": "none", "device": "cpu", "precision": "fp32"}
INTERRUPT = """
    import os, signal
    from pathlib import Path
    import zoo

    @zoo.hookimpl
    def zoo_on_first_batch(event):
        marker = Path("interrupt")
        if marker.exists():
            marker.unlink()
            os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.fixture(autouse=True)
def reporting(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_PLUGINS", "-tensorboard,-regression,-timm")
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)


def results(run):
    """Return what a run stores for its report, and check that its page can be written."""
    check_page(run / "report.html")
    return json.loads((run / "results.json").read_text())


def test_report_of_resumed_epochs_is_the_same(tinynet, image_folder):
    options = {**QUICK, "data": image_folder, "train": "all", "epochs": 2}
    options |= {"lr": 0.01, "batch_size": 8}
    zoo.finetune(tinynet, loss=InterruptingLoss(), **options, out="whole")
    run, points = finetune_interrupted(tinynet, (4,), **options, out="parts")
    assert points[0][2]  # inside of an epoch
    whole, parts = results(Path("whole")), results(run.path)
    assert parts["task"] == whole["task"]
    text = (run.path / "report.html").read_text()
    assert "Learning curves" in text
    assert "Where the network looks" in text


def test_report_of_resumed_probe_is_the_same(install, plainnet, image_folder):
    install("interrupt", INTERRUPT)
    options = {**QUICK, "data": image_folder, "recipe": "probe"}
    zoo.finetune(plainnet, **options, out="whole")
    Path("interrupt").touch()
    with pytest.raises(KeyboardInterrupt):
        zoo.finetune(plainnet, **options, out="parts")
    run = zoo.finetune(resume="parts")
    whole, parts = results(Path("whole")), results(run.path)
    assert parts == whole
    assert parts["task"]["label_errors"]["images"] == 24
    assert [section["title"] for section in parts["sections"]] == ["First training batch"]


@pytest.mark.parametrize("recipe", ["probe", "all"])
def test_report_of_two_processes_is_that_of_one(recipe, plainnet, image_folder):
    given = {**QUICK, "recipe": recipe}
    given |= {} if recipe == "probe" else {"epochs": 1, "optimizer": "sgd"}
    zoo.finetune(plainnet, data=image_folder, out="one", **given)
    options = [f"--{name}={value}" for name, value in given.items()]
    options += ["--data", str(image_folder), "--quiet", "--out", "two"]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["-m", "zoo", "finetune", plainnet, *options]
    with started(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
    one, two = (results(Path(name))["task"] for name in ("one", "two"))
    for split in ("val", "test"):
        assert two["samples"][split]["name"] == one["samples"][split]["name"]
        assert two["samples"][split]["true"] == one["samples"][split]["true"]
        for key in ("probability", "probabilities"):
            for a, b in zip(one["samples"][split][key], two["samples"][split][key], strict=True):
                assert a == pytest.approx(b, abs=1e-3)
    assert two.get("label_errors", {}).get("images") == one.get("label_errors", {}).get("images")
    assert len(two["activation"]["shown"]) == len(one["activation"]["shown"]) > 0
    assert two["counts"] == one["counts"]
