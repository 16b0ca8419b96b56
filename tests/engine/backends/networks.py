"""Networks and their engines, for the tests of engines."""

import pytest
import torch

import zoo
from zoo.engine.backends.choice import TORCH, engine_of
from zoo.engine.backends.openvino_model import computes_in
from zoo.engine.runtime.network import Network
from zoo.models.freeze import freeze
from zoo.models.provenance import provenance_of
from zoo.registry.registry import load_registry
from zoo.tasks.base import load_task

CPU = torch.device("cpu")
BATCH = 4
PROBE = {"weights": "none", "device": "cpu", "recipe": "probe"}


def network_of(name, precision="fp32", seed=0, device=CPU):
    torch.manual_seed(seed)
    module = zoo.get(name).build(classes=3, weights=None)
    freeze(module)
    made = provenance_of(module)
    task = load_task(load_registry().task(made.backbone.task))
    return Network(module, made.backbone.heads, made.preprocess, device, precision, task)


def engines(network, name="openvino", training=False):
    return [engine_of(network, each, BATCH, training) for each in (TORCH, name)]


def skip_without(precision):
    """Skip the test where OpenVINO does not compute in a precision."""
    if not computes_in(precision):
        pytest.skip(f"OpenVINO does not compute in {precision} on this CPU")
