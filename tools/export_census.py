"""Export backbones with random weights to ONNX, and compare them in ONNX Runtime.

`uv run python -m tools.census ROWS --export` exports the smallest backbone of each group of similar
ones; this module is what its processes run. Weights are random and the head is new, with ten
classes, on images of the embedded set.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from zoo.errors import ZooError
from zoo.files import cache_dir, staging_folder
from zoo.inference.export.agreement import as_facts, compare, sample_images
from zoo.inference.export.export import describe
from zoo.inference.export.exporter import Source
from zoo.inference.export.onnx import ONNXExporter
from zoo.inference.loading import on_device
from zoo.inference.predictor import Predictor
from zoo.models.provenance import provenance_of
from zoo.registry.registry import Registry
from zoo.tasks.base import Schema, load_task
from zoo.testing.findings import EXCEPTED, PASSED

EXPORT = "export"
IMAGES = 4
CLASSES = tuple(f"class {number}" for number in range(10))


def check_export(identity: str, registry: Registry) -> dict[str, Any]:
    """Return the findings on a backbone: whether it is exported and agrees, and how far."""
    backbone = registry.get(identity)
    torch.manual_seed(0)
    module = backbone.build(classes=len(CLASSES), weights=None)
    made, task = provenance_of(module), load_task(registry.task(backbone.task))
    network = on_device(module, made.backbone.heads, made.preprocess, "cpu", "fp32", task)
    model = Predictor(network, Schema(CLASSES), backbone.id)
    source, exporter = Source(model, backbone.name, describe(model)), ONNXExporter()
    began = time.perf_counter()
    try:
        with staging_folder(Path(cache_dir())) as folder:
            facts = exporter.write(source, folder.path / "model.onnx")
            run = exporter.load(source, folder.path / "model.onnx")
            agreement = compare(run, source, list(sample_images(IMAGES)))
    except ZooError as error:
        return {"findings": {EXPORT: [EXCEPTED, error.message]}}
    finding = [PASSED, "" if facts["any_batch"] else "one image at a time"]
    seconds = round(time.perf_counter() - began, 1)
    return {"findings": {EXPORT: finding}, "export": seconds, **as_facts(agreement)}
