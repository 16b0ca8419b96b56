"""Measure the pass through frozen bodies by each engine, and how far their outputs differ.

    uv run python -m benchmarks.engines [--rounds 7] [--out FILE]

For each network, interleaved in one process: the inputs of the heads of 160 images in batches of
32, prepared in memory, by torch and by OpenVINO, in the precision that a training chooses. Weights
are those that are installed, else random. Prints a table and writes `engines.json`.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch

import zoo
from benchmarks.harness.bench import load_results, write_results
from zoo.data.transforms import Transform
from zoo.engine.backends.choice import CONVERTED, TORCH, engine_of, pays_from
from zoo.engine.features.hooks import run_heads
from zoo.engine.runtime.allocator import retain_freed_memory
from zoo.engine.runtime.device import resolve_precision
from zoo.engine.runtime.network import Network
from zoo.models.freeze import freeze, inference_mode_of
from zoo.models.provenance import provenance_of
from zoo.models.weight_sources import local_weights
from zoo.registry.registry import load_registry
from zoo.tasks.base import load_task
from zoo.tasks.classification.data.sources import open_data

RESULTS = Path(__file__).with_suffix(".json")
NETWORKS = (
    "torchvision/resnet18",
    "efficientnet_lite/lite0",
    "timm/vit_tiny_patch16_224",
    "timm/mobilenetv2_100",
)
BATCH, BATCHES = 32, 5
CPU = torch.device("cpu")


def build(name: str) -> tuple[Network, bool]:
    """Return a frozen network, and whether its weights are pretrained."""
    backbone = zoo.get(name)
    pretrained = local_weights(backbone) is not None
    # With its own head where there are weights, so that classes differ in their probabilities.
    module = backbone.build(weights="auto" if pretrained else None)
    freeze(module)
    made = provenance_of(module)
    precision, _ = resolve_precision("auto", CPU)
    task = load_task(load_registry().task(backbone.task))
    heads, preprocess = made.backbone.heads, made.preprocess
    return Network(module, heads, preprocess, CPU, precision, task), pretrained


def measure(name: str, rounds: int) -> dict[str, Any]:
    """Return rates in images per second, the time of a conversion, and differences of outputs."""
    network, pretrained = build(name)
    precision = network.precision
    split, transform = open_data(None).splits["val"], Transform(network.preprocess)
    images = [transform(split.content(index)) for index in range(len(split))]
    floats = torch.stack((images * (1 + BATCH * BATCHES // len(images)))[: BATCH * BATCHES])
    # Trainings prepare bytes, channels last in memory.
    pixels = zoo.data.transforms.denormalize(floats, network.preprocess)
    batches = pixels.contiguous(memory_format=torch.channels_last).split(BATCH)
    engines = {each: engine_of(network, each, BATCH) for each in (TORCH, CONVERTED)}
    began = time.perf_counter()
    engines[CONVERTED].load(write=False)
    conversion = time.perf_counter() - began
    seconds: dict[str, list[float]] = {each: [] for each in engines}
    probabilities: dict[str, torch.Tensor] = {}
    with retain_freed_memory():
        for number in range(rounds + 1):
            for each, engine in engines.items():
                began = time.perf_counter()
                inputs = [part for _, part in engine.stream(batches, lambda batch: batch)]
                if number:  # the first round is a warm-up
                    seconds[each].append(time.perf_counter() - began)
                elif len(network.paths) == 1:
                    with inference_mode_of(network.module):
                        logits = [run_heads(network, part or {}, False).main for part in inputs]
                    probabilities[each] = torch.cat(logits).float().softmax(1)
    network.precision = "fp32"
    with inference_mode_of(network.module):
        exact = engine_of(network, TORCH, BATCH)
        logits = [run_heads(network, exact.compute(batch), False).main for batch in batches]
    probabilities["float32"] = torch.cat(logits).float().softmax(1)
    ratios = [a / b for a, b in zip(seconds[TORCH], seconds[CONVERTED], strict=True)]
    return {
        "precision": precision,
        "pretrained": pretrained,
        "conversion_seconds": round(conversion, 1),
        "pays_from": pays_from(network),
        "images_per_second": {
            each: round(len(pixels) / statistics.median(times)) for each, times in seconds.items()
        },
        "ratio": round(statistics.median(ratios), 2),
        "differences": {
            "openvino from torch": _differ(probabilities[CONVERTED], probabilities[TORCH]),
            "torch from float32": _differ(probabilities[TORCH], probabilities["float32"]),
            "openvino from float32": _differ(probabilities[CONVERTED], probabilities["float32"]),
        },
    }


def _differ(one: torch.Tensor, other: torch.Tensor) -> dict[str, float]:
    """Return the agreement of the most probable classes, and the largest difference."""
    return {
        "top1": round(float((one.argmax(1) == other.argmax(1)).float().mean()), 3),
        "probability": round(float((one - other).abs().max()), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of results")
    options = parser.parse_args()
    results = load_results(options.out, True, {"networks": {}}, rounds=options.rounds)
    for name in NETWORKS:
        one = results["networks"][name] = measure(name, options.rounds)
        print(name, one, flush=True)
    write_results(results, options.out)


if __name__ == "__main__":
    main()
