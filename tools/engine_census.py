"""Convert backbones with random weights by OpenVINO, and compare them with torch.

`uv run python -m tools.census ROWS --engine` checks the smallest backbone of each group of similar
ones; this module is what its processes run. Weights are random and the head is new, with ten
classes, on images of the embedded set, of the network's own size; of the smallest size that it
accepts, where it has more than 100 million parameters or one million pixels.
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from zoo.engine.backends.agreement import disagreement
from zoo.engine.backends.choice import CONVERTED, TORCH, engine_of
from zoo.engine.backends.engine import Engine
from zoo.engine.backends.openvino_model import computes_in
from zoo.engine.features.cache import trains_auxiliary
from zoo.engine.features.hooks import check_head_equivalence, run_heads
from zoo.engine.runtime.network import Network
from zoo.errors import ZooError
from zoo.models.freeze import freeze, inference_mode_of
from zoo.models.provenance import provenance_of
from zoo.registry.registry import Registry
from zoo.spec import Backbone
from zoo.tasks.base import load_task
from zoo.tasks.classification.data.sources import open_data
from zoo.testing.findings import EXCEPTED, NOT_APPLICABLE, PASSED
from zoo.testing.subject import SMALL_SIZES

ENGINE = "engine"
IMAGES = 8
CLASSES = 10
# Networks of more parameters or pixels see the smallest images that they accept.
LARGE, LARGE_IMAGE = 100_000_000, 1_000_000
CPU = torch.device("cpu")


def read_images(network: Network, count: int) -> Tensor:
    """Return images of the embedded set, of every class, as a network sees them."""
    from zoo.data.transforms import Transform

    split = open_data(None).splits["val"]
    step = max(1, len(split) // count)
    transform = Transform(network.preprocess)
    return torch.stack([transform(split.content(index)) for index in range(0, step * count, step)])


def check_engine(identity: str, registry: Registry) -> dict[str, Any]:
    """Return the findings on a backbone: whether it converts and agrees, and how far it differs.

    On a CPU without bfloat16, it is compared in float32 alone.
    """
    backbone = registry.get(identity)
    torch.manual_seed(0)
    module = _build(backbone)
    freeze(module)
    made = provenance_of(module)
    task = load_task(registry.task(backbone.task))
    network = Network(module, made.backbone.heads, made.preprocess, CPU, "fp32", task)
    images = read_images(network, IMAGES)
    reason, _ = check_head_equivalence(network, images[:2])
    if reason is not None:
        return {"findings": {ENGINE: [NOT_APPLICABLE, reason]}}
    training = trains_auxiliary(network)
    precisions = [each for each in ("fp32", "bf16") if computes_in(each)]
    began = time.perf_counter()
    try:
        engine = engine_of(network, CONVERTED, IMAGES, training)
        engine.load(write=False)
        seconds = time.perf_counter() - began
        failures, measured = {}, {}
        for precision in precisions:
            network.precision = precision
            network.engines.clear()
            other = engine_of(network, CONVERTED, IMAGES, training)
            vars(other).update(_converted=engine._converted, _heads=engine._reference())  # type: ignore[attr-defined]
            failures[precision] = other.crash() or disagreement(other, images)
            if failures[precision] is None:
                measured = _differences(other, images)
    except ZooError as error:
        return {"findings": {ENGINE: [EXCEPTED, error.message]}}
    wrong = "; ".join(f"{name}: {reason}" for name, reason in failures.items() if reason)
    alone = "" if "bf16" in precisions else "in float32"
    finding = [EXCEPTED, wrong] if wrong else [PASSED, alone]
    return {"findings": {ENGINE: finding}, "conversion": round(seconds, 1), **measured}


def _build(backbone: Backbone) -> nn.Module:
    """Build a network; a large one for the smallest images that it accepts, as the suite does."""
    pixels = backbone.preprocess.height * backbone.preprocess.width
    large = (backbone.params or 0) > LARGE or pixels > LARGE_IMAGE
    for size in SMALL_SIZES if large else ():
        with suppress(ZooError):
            return backbone.build(classes=CLASSES, weights=None, input_size=size)
    return backbone.build(classes=CLASSES, weights=None)


def _differences(engine: Engine, images: Tensor) -> dict[str, float]:
    """Return how far outputs differ from torch's in this precision, and torch's own from fp32."""
    network = engine.network
    eager = engine_of(network, TORCH, engine.batch, engine.training)
    with inference_mode_of(network.module):
        measured = run_heads(network, engine.compute(images), False).main.float().softmax(1)
        expected = run_heads(network, eager.compute(images), False).main.float().softmax(1)
        network.precision = "fp32"
        exact = run_heads(network, eager.compute(images), False).main.float().softmax(1)
    return {
        "top1": float((measured.argmax(1) == expected.argmax(1)).float().mean()),
        "probability": float((measured - expected).abs().max()),
        "own": float((expected - exact).abs().max()),
    }
