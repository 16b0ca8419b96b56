"""Schedules: factors equal to torch's, parsing and text."""

import random

import pytest
import torch
from torch import nn

import zoo
from zoo.options import Schedule


def test_step_equals_torch_step_lr():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
    factor = Schedule.parse("step:7,0.1")
    for epoch in range(25):
        assert factor(epoch / 25, epoch) == pytest.approx(reference.get_last_lr()[0])
        optimizer.step()
        reference.step()
    assert Schedule.parse("step")(0.5, 7) == pytest.approx(0.1)


def test_cosine_equals_torch_cosine_annealing_after_warmup():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=90)
    factor = Schedule.parse("cosine:0.1")
    assert factor(0.05, 0) == pytest.approx(0.5)
    for step in range(10, 100):
        assert factor(step / 100, 0) == pytest.approx(reference.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        reference.step()
    assert Schedule.parse("cosine:0")(0.0, 0) == 1.0


def test_constant_factor_is_one():
    assert {Schedule.parse("constant")(p / 10, p) for p in range(10)} == {1.0}


def test_text_round_trip_is_exact():
    draw = random.Random(0)
    for _ in range(200):
        step = Schedule("step", size=draw.randint(1, 999), gamma=1 - draw.random())
        cosine = Schedule("cosine", warmup=draw.random() * 10 ** -draw.randint(0, 9))
        assert Schedule.parse(str(step)) == step
        assert Schedule.parse(str(cosine)) == cosine
    for text in ("constant", "step:7,0.1", "cosine:0.1", "cosine:0"):
        assert str(Schedule.parse(text)) == text
    assert Schedule.parse("step") == Schedule.parse("step:7,0.1")
    assert Schedule.parse("cosine") == Schedule.parse("cosine:0.10")


@pytest.mark.parametrize(
    "text", ["linear", "step:x", "step:0,0.1", "step:7", "cosine:1", "cosine:x", "constant:1", ""]
)
def test_parse_malformed_text_is_refused(text):
    with pytest.raises(zoo.UsageError):
        Schedule.parse(text)
