"""Schedules against torch's own, and optimizers by name."""

import pytest
import torch
from torch import nn

import zoo
from zoo.engine.training.optim import make_optimizer, parse_schedule


def test_step_is_torchs_step_lr():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
    factor = parse_schedule("step:7,0.1")
    for epoch in range(25):
        assert factor(epoch / 25, epoch) == pytest.approx(reference.get_last_lr()[0])
        optimizer.step()
        reference.step()
    assert parse_schedule("step")(0.5, 7) == pytest.approx(0.1)


def test_cosine_is_torchs_cosine_after_its_warm_up():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    reference = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=90)
    factor = parse_schedule("cosine:0.1")
    assert factor(0.05, 0) == pytest.approx(0.5)
    for step in range(10, 100):
        assert factor(step / 100, 0) == pytest.approx(reference.get_last_lr()[0], abs=1e-9)
        optimizer.step()
        reference.step()
    assert parse_schedule("cosine:0")(0.0, 0) == 1.0


def test_constant():
    assert {parse_schedule("constant")(p / 10, p) for p in range(10)} == {1.0}


@pytest.mark.parametrize(
    "text", ["linear", "step:x", "step:0,0.1", "step:7", "cosine:1", "cosine:x", "constant:1", ""]
)
def test_malformed_schedules(text):
    with pytest.raises(zoo.UsageError):
        parse_schedule(text)


def test_optimizers():
    parameters = [nn.Parameter(torch.zeros(2))]
    sgd = make_optimizer("sgd", parameters, 0.1, 0.9, 0.01)
    assert isinstance(sgd, torch.optim.SGD)
    assert sgd.defaults["momentum"] == 0.9
    assert isinstance(make_optimizer("adamw", parameters, 0.1, 0.9, 0.01), torch.optim.AdamW)
    assert type(make_optimizer("adam", parameters, 0.1, 0.9, 0.0)) is torch.optim.Adam
    with pytest.raises(zoo.UsageError, match="did you mean adam, adamw"):
        make_optimizer("adamm", parameters, 0.1, 0.9, 0.01)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_one_kernel_for_all_parameters_gives_what_one_for_each_gives(name):
    given = {"sgd": 0.9, "adam": 0.0, "adamw": 0.0}[name]
    found = {}
    for fused in (True, False, True):
        torch.manual_seed(0)
        # No bias before batch norm: its gradient is noise, of which Adam makes whole steps.
        first = nn.Conv2d(3, 8, 3, bias=False)
        layers = nn.Sequential(first, nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 3))
        optimizer = make_optimizer(name, list(layers.parameters()), 0.05, given, 0.01)
        assert optimizer.param_groups[0]["fused"] is True
        optimizer.param_groups[0]["fused"] = fused
        for _ in range(5):
            optimizer.zero_grad()
            layers(torch.randn(4, 3, 9, 9)).square().mean().backward()
            optimizer.step()
        found.setdefault(fused, []).append(nn.utils.parameters_to_vector(layers.parameters()))
    one, again = found[True]
    assert torch.equal(one, again)
    torch.testing.assert_close(one, found[False][0], rtol=1e-4, atol=1e-6)
