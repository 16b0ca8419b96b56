"""Optimizers by name."""

import pytest
import torch
from torch import nn

import zoo
from zoo.engine.training.optim import make_optimizer


def test_make_optimizer_by_name():
    parameters = [nn.Parameter(torch.zeros(2))]
    sgd = make_optimizer("sgd", parameters, 0.1, 0.9, 0.01)
    assert isinstance(sgd, torch.optim.SGD)
    assert sgd.defaults["momentum"] == 0.9
    assert isinstance(make_optimizer("adamw", parameters, 0.1, 0.9, 0.01), torch.optim.AdamW)
    assert type(make_optimizer("adam", parameters, 0.1, 0.9, 0.0)) is torch.optim.Adam
    with pytest.raises(zoo.UsageError, match="did you mean adam, adamw"):
        make_optimizer("adamm", parameters, 0.1, 0.9, 0.01)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_fused_optimizer_equals_unfused(name):
    momentum = {"sgd": 0.9, "adam": 0.0, "adamw": 0.0}[name]
    results = {}
    for fused in (True, False, True):
        torch.manual_seed(0)
        # No bias before batch norm: its gradient is noise, which Adam scales to full steps.
        first = nn.Conv2d(3, 8, 3, bias=False)
        layers = nn.Sequential(first, nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 2, 3))
        optimizer = make_optimizer(name, list(layers.parameters()), 0.05, momentum, 0.01)
        assert optimizer.param_groups[0]["fused"] is True
        optimizer.param_groups[0]["fused"] = fused
        for _ in range(5):
            optimizer.zero_grad()
            layers(torch.randn(4, 3, 9, 9)).square().mean().backward()
            optimizer.step()
        results.setdefault(fused, []).append(nn.utils.parameters_to_vector(layers.parameters()))
    one, again = results[True]
    assert torch.equal(one, again)
    torch.testing.assert_close(one, results[False][0], rtol=1e-4, atol=1e-6)
