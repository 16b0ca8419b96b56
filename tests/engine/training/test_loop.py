"""Training loop: divergence, best epoch, learning rate of each step, precision of heads."""

import math
import shutil
from pathlib import Path

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

import zoo
from zoo.modelfile import read_model

QUICK = {"weights": "none", "device": "cpu", "precision": "fp32"}

# In eval mode, the logits of two classes are scripted by the number of training steps so far.
SCRIPTED = """
    import os
    import zoo

    @zoo.hookimpl
    def zoo_register_backbones():
        small = zoo.Preprocess(size=16)
        yield zoo.Backbone("scripted", "plugin_scripted:build", (zoo.Head("fc"),), small)

    def build(weights=None):
        import torch
        from torch import nn

        class Scripted(nn.Module):
            def __init__(self):
                super().__init__()
                self.fc = nn.Linear(3, 7)
                self.register_buffer("steps", torch.zeros(1))
                self.script = [float(x) for x in os.environ["SCRIPT"].split()]

            def forward(self, x):
                logits = self.fc(x.mean((2, 3)))
                if self.training:
                    self.steps += 1
                    return logits
                margin = self.script[int(self.steps) - 1]
                return torch.stack([logits[:, 0] * 0 + margin, logits[:, 0] * 0], 1)

        return Scripted()
"""


@pytest.fixture
def unequal(image_folder, tmp_path, monkeypatch):
    """Two classes: four training images of each; three `flag` and one `mammal` for validation."""
    monkeypatch.chdir(tmp_path)
    for split, name, count in (
        *(("train", "flag", 4), ("train", "mammal", 4)),
        *(("val", "flag", 3), ("val", "mammal", 1)),
    ):
        folder = tmp_path / "unequal" / split / name
        folder.mkdir(parents=True)
        for path in sorted((image_folder / split / name).iterdir())[:count]:
            shutil.copyfile(path, folder / path.name)
    return tmp_path / "unequal"


def run_script(install, monkeypatch, data, margins):
    """Train one step per epoch, with logits `[margin, 0]` in the validation of each epoch."""
    monkeypatch.setenv("SCRIPT", " ".join(map(str, margins)))
    install("scripted", SCRIPTED)
    options = {"train": "all", "epochs": len(margins), "batch_size": 8, **QUICK}
    return zoo.finetune("scripted", data=data, **options)


def test_nan_validation_loss_raises_diverged(install, monkeypatch, unequal, cli):
    with pytest.raises(zoo.Diverged, match="the validation loss became nan in epoch 2"):
        run_script(install, monkeypatch, unequal, [1.0, math.nan, 1.0])
    options = ["--data", unequal, "--weights", "none", "--train", "all", "--epochs", "3"]
    code, _, err = cli("finetune", "scripted", *options, "--precision", "fp32", "--batch-size", "8")
    assert code == zoo.ExitCode.DIVERGED == 8
    assert "the validation loss became nan in epoch 2" in err
    assert not Path("runs").exists()


def scores(margin):
    """Return top-1 and mean cross-entropy of three images of class 0 and one of class 1."""
    right, wrong = (math.log1p(math.exp(-m)) for m in (margin, -margin))
    return (0.75 if margin > 0 else 0.25), (3 * right + wrong) / 4


@pytest.mark.parametrize(
    ("margins", "best"),
    [
        # Accuracy first, though the loss is lowest in the last epoch.
        ([-0.1, 8.0, -0.1], 2),
        # Of equal accuracy the lowest loss; of equal loss the earliest.
        ([8.0, 5.0, 5.0, 6.0], 2),
        ([5.0, 5.0, 8.0], 1),
    ],
)
def test_best_epoch_by_accuracy_then_loss_then_order(install, monkeypatch, unequal, margins, best):
    run = run_script(install, monkeypatch, unequal, margins)
    top1, loss = scores(margins[best - 1])
    assert run.metrics["val"]["top1"] == top1
    assert run.metrics["val"]["loss"] == pytest.approx(loss, rel=1e-5)
    assert read_model(run.path / "model.safetensors")[1].tensors["steps"].item() == best


@pytest.fixture
def rates():
    """Record the learning rate of each optimizer step."""
    rates_of_steps = []
    handle = register_optimizer_step_pre_hook(
        lambda optimizer, *_: rates_of_steps.append(
            [group["lr"] for group in optimizer.param_groups]
        )
    )
    yield rates_of_steps
    handle.remove()


LR, EPOCHS, STEPS = 0.02, 4, 3


def constant(step):
    return LR


def step_two_tenth(step):
    return LR * (1.0 if step < 2 * STEPS else 0.1)


def cosine_quarter(step):
    # 3 of 12 steps are warm-up, evaluated at the middle of the step: 1/6, 3/6 and 5/6.
    if step < 3:
        return LR * (1 / 6, 3 / 6, 5 / 6)[step]
    return LR * math.cos(math.pi / 2 * (step + 0.5 - 3) / 9) ** 2


@pytest.mark.parametrize("train", ["head", "all"])
@pytest.mark.parametrize(
    ("schedule", "expected"),
    [("constant", constant), ("step:2,0.1", step_two_tenth), ("cosine:0.25", cosine_quarter)],
)
def test_learning_rate_of_each_step(
    tinynet, image_folder, rates, tmp_path, monkeypatch, train, schedule, expected
):
    monkeypatch.chdir(tmp_path)
    options = {"lr": LR, "epochs": EPOCHS, "batch_size": 8, "schedule": schedule, **QUICK}
    zoo.finetune(tinynet, data=image_folder, train=train, **options)
    assert len(rates) == EPOCHS * STEPS
    for step, [rate] in enumerate(rates):
        assert rate == pytest.approx(expected(step), rel=1e-9)


def test_heads_train_in_float32_under_bf16(tinynet, image_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    outputs = []

    def record(module, inputs, output):
        if isinstance(module, torch.nn.Linear) and torch.is_grad_enabled():
            with torch.autocast("cpu", enabled=False), torch.no_grad():
                exact = torch.nn.functional.linear(inputs[0].float(), module.weight, module.bias)
            outputs.append((output.dtype, torch.equal(output.float(), exact)))

    handle = torch.nn.modules.module.register_module_forward_hook(record)
    options = {**QUICK, "precision": "bf16", "epochs": 1, "batch_size": 8}
    try:
        run = zoo.finetune(tinynet, data=image_folder, train="all", **options)
    finally:
        handle.remove()
    assert run.record["plan"]["precision"] == "bf16"
    assert len(outputs) == 2 * STEPS  # the main head and the auxiliary one
    assert set(outputs) == {(torch.float32, True)}
