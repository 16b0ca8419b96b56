"""The folder of a training: which `--out` is refused, and how."""

import shutil
from pathlib import Path

import pytest
from filelock import FileLock

import zoo
from tests.engine.run.interrupting import InterruptingLoss
from zoo.engine.plan.options import Options
from zoo.engine.run.folder import acquire_folder, check_out
from zoo.errors import Busy, ExitCode, UsageError


@pytest.mark.parametrize("take", [check_out, lambda options: acquire_folder(options, "name")])
def test_folder_of_running_training_is_busy(take, tmp_path):
    out = tmp_path / "run"
    (out / "checkpoints/checkpoint-000001").mkdir(parents=True)
    options = Options(out=str(out))
    with FileLock(out / ".claim"), pytest.raises(Busy, match="another run is writing") as refused:
        take(options)
    assert refused.value.exit_code == ExitCode.BUSY == 7
    with pytest.raises(UsageError, match="is not empty") as refused:
        take(options)
    assert "--resume" in refused.value.hint
    assert [path.name for path in Path(out).iterdir() if path.name != ".claim"] == ["checkpoints"]


TRAINING = {"weights": "none", "device": "cpu", "train": "all", "batch_size": 8, "lr": 0.01}


class Faulty(InterruptingLoss):
    """Cross-entropy that causes a fault in its third call for training.

    Args:
        fault: a function.
        interrupted: whether the fifth call interrupts the training.
    """

    def __init__(self, fault=lambda: None, interrupted=False):
        super().__init__(*((5,) if interrupted else ()))
        self.fault = fault

    def __call__(self, logits, labels):
        loss = super().__call__(logits, labels)
        if self.count == 3:
            self.fault()
        return loss


def remove():
    shutil.rmtree("run")


def replace():
    remove()
    Path("run").write_text("mine")


def test_removed_run_folder_is_written_again(tinynet, image_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = {**TRAINING, "data": image_folder, "epochs": 3, "checkpoint_every": 0}
    with pytest.raises(KeyboardInterrupt) as interrupted:
        zoo.finetune(tinynet, **options, out="run", loss=Faulty(remove, True), quiet=False)
    notice = "run was removed or renamed during the training, and is written again\n"
    assert capsys.readouterr().err.count(notice) == 1
    assert "zoo finetune --resume run" in interrupted.value.__notes__[0]
    run = zoo.finetune(resume="run", loss=Faulty())
    whole = zoo.finetune(tinynet, **options, out="whole", loss=Faulty())
    assert run.record["sha256"] == whole.record["sha256"]


def test_run_folder_replaced_by_file_is_named(tinynet, image_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {**TRAINING, "data": image_folder, "epochs": 3, "checkpoint_every": 0, "out": "run"}
    with pytest.raises(zoo.ZooError, match=r"cannot write run/checkpoints: .* director") as failed:
        zoo.finetune(tinynet, **options, loss=Faulty(replace))
    assert failed.value.exit_code == ExitCode.ENVIRONMENT
    assert Path("run").read_text() == "mine"
