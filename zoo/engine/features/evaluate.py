"""Evaluate a network on a split, its features computed by an engine."""

from __future__ import annotations

from zoo.data.split import Split
from zoo.engine.backends.engine import Engine
from zoo.engine.features.hooks import run_heads
from zoo.engine.features.stream import stream_split
from zoo.engine.runtime.reader import ImageReader
from zoo.models.freeze import inference_mode_of
from zoo.tasks.base import Metric


def evaluate_on_engine(engine: Engine, split: Split, reader: ImageReader, metric: Metric) -> Metric:
    """Run a split through an engine and the heads, and return the updated metric.

    Args:
        engine: of a network whose heads alone have its outputs.
        split: to evaluate on.
        reader: of the split.
        metric: to update.
    """
    network = engine.network

    for batch, inputs in stream_split(engine, reader, split, range(len(split))):
        targets = batch.targets.to(network.device, non_blocking=True)
        with inference_mode_of(network.module):
            if inputs is None:
                outputs = network.forward(batch.inputs, pad_to=reader.batch_size)
            else:
                outputs = run_heads(network, inputs, training=False)
            metric.update(outputs, targets)
    return metric
