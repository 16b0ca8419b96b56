"""A network compiled by torch computes the same head inputs."""

import pytest
import torch

import zoo
from tests.devices import DEVICES
from tests.engine.backends.networks import BATCH, engines, network_of
from zoo.data.images import noise
from zoo.engine.backends import choice
from zoo.engine.backends.agreement import disagreement
from zoo.engine.runtime.device import autocast


@pytest.mark.slow
@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_network_agrees(tinynet, precision, device):
    network = network_of(tinynet, precision, device=torch.device(device))
    _, compiled = engines(network, "compile")
    images = noise(BATCH, network.preprocess, seed=1)
    try:
        type(compiled).check(network.device)
    except zoo.EnvironmentProblem:
        pytest.skip("no C++ compiler")
    # dynamo runs what it has compiled of another network where the two are alike to it.
    other = network_of(tinynet, precision, seed=1, device=network.device)
    pixels = zoo.data.transforms.normalize(images.to(network.device), network.preprocess)
    with torch.no_grad(), autocast(network.device, precision):
        torch.compile(other.module.eval())(pixels)
    assert disagreement(compiled, images) is None
    assert not any("input" in vars(part) for part in network.module.modules())


def test_compile_without_compiler_is_environment_problem(monkeypatch):
    from torch._inductor import config, cpp_builder

    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    cpp_builder.cpp_compiler_search.cache_clear()
    with pytest.raises(zoo.EnvironmentProblem, match="C\\+\\+ compiler"):
        choice.engine_class("compile").check(torch.device("cpu"))
