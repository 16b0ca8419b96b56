"""The folder of a training: which `--out` is refused, and how."""

import shutil
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy

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


class Removing(InterruptingLoss):
    """Cross-entropy that removes the run folder in its third call, and interrupts in its fifth.

    Args:
        put: called with the path after its removal.
    """

    def __init__(self, put=lambda path: None):
        super().__init__(5)
        self.put = put

    def __call__(self, logits, labels):
        if self.count == 2:
            shutil.rmtree("run")
            self.put(Path("run"))
        return super().__call__(logits, labels)


def test_removed_run_folder_is_written_again(tinynet, image_folder, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    options = {**TRAINING, "data": image_folder, "epochs": 3, "checkpoint_every": 0, "out": "run"}
    with pytest.raises(KeyboardInterrupt) as interrupted:
        zoo.finetune(tinynet, **options, loss=Removing(), quiet=False)
    notice = "run was removed or renamed during the training, and is written again\n"
    assert capsys.readouterr().err.count(notice) == 1
    assert "zoo finetune --resume run" in interrupted.value.__notes__[0]
    run = zoo.finetune(resume="run", override=True, loss=cross_entropy)
    whole = zoo.finetune(tinynet, **{**options, "out": "whole"}, loss=cross_entropy)
    tensors = [load_file(each.path / "model.safetensors") for each in (run, whole)]
    assert all(torch.equal(tensors[0][name], other) for name, other in tensors[1].items())


def test_run_folder_replaced_by_file_is_named(tinynet, image_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {**TRAINING, "data": image_folder, "epochs": 3, "checkpoint_every": 0, "out": "run"}
    with pytest.raises(zoo.ZooError, match=r"cannot write run/checkpoints: .* director") as failed:
        zoo.finetune(tinynet, **options, loss=Removing(lambda path: path.write_text("mine")))
    assert failed.value.exit_code == ExitCode.ENVIRONMENT
    assert Path("run").read_text() == "mine"
