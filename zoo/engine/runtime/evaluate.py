"""Evaluate a network on a split."""

from __future__ import annotations

from torch import Tensor

from zoo.data.split import Split
from zoo.engine.runtime.distributed import SINGLE, Ranks
from zoo.engine.runtime.network import Network
from zoo.engine.runtime.reader import ImageReader
from zoo.models.freeze import inference_mode_of
from zoo.tasks.base import Metric, Outputs


def evaluate_split(
    network: Network, split: Split, reader: ImageReader, metric: Metric, ranks: Ranks = SINGLE
) -> Metric:
    """Run a split through a network in eval mode, and return the updated metric.

    Args:
        network: on its device.
        split: to evaluate on.
        reader: of the split.
        metric: to update.
        ranks: this process, which evaluates its shard of the split.
    """
    with inference_mode_of(network.module):
        for batch in reader.read(split, ranks.shard(range(len(split)))):
            targets = batch.targets.to(network.device, non_blocking=True)
            outputs = network.forward(batch.inputs, pad_to=reader.batch_size)
            update_metric(network, metric, batch.indices, outputs, targets)
    return ranks.merge(metric)


def update_metric(
    network: Network, metric: Metric, indices: Tensor, outputs: Outputs, targets: Tensor
) -> None:
    """Accumulate a batch in a metric, with the results of each sample where it records them.

    Args:
        network: that returned the outputs.
        metric: to update.
        indices: `[samples]`, positions in the split, on the CPU.
        outputs: of the samples.
        targets: of the samples.
    """
    metric.update(outputs, targets)
    if metric.samples is not None:
        metric.samples.add(indices, network.task.sample_results(outputs, targets))
