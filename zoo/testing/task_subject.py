"""A task on trial: its example data, a network, and what the network returns for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from zoo.data.loader import Batch, load_batches
from zoo.data.split import ImageData
from zoo.engine.runtime.network import Network
from zoo.models.build import resolve_and_build
from zoo.models.freeze import freeze, inference_mode_of
from zoo.models.provenance import how_made
from zoo.tasks.base import BaseTask, Metric, Outputs
from zoo.testing.findings import Broken
from zoo.testing.subject import Subject

COUNT = 7
OWN = "mean_output"


@dataclass
class TaskSubject:
    """One task, and what the checks need of it; made when first asked for.

    Args:
        name: that it is registered by.
        task: what implements it.
        trial: a backbone that it trains.
    """

    name: str
    task: BaseTask
    trial: Subject

    @cached_property
    def data(self) -> ImageData:
        """Its example data, of the size that the network sees."""
        preprocess = self.trial.small.apply(self.trial.backbone).preprocess
        return self.task.example_data(preprocess, COUNT, seed=2)

    @cached_property
    def network(self) -> Network:
        """A network with heads for the example data, untrained."""
        backbone, weights = self.trial.backbone, str(self.trial.settled)
        outputs, options = self.data.schema.outputs, self.trial.small
        model = resolve_and_build(backbone, weights, outputs, seed=1, options=options)
        freeze(model, policy="head")
        made = how_made(model)
        heads, cpu = made.backbone.heads, torch.device("cpu")
        return Network(model, heads, made.preprocess, cpu, "fp32", self.task)

    @cached_property
    def batch(self) -> Batch:
        """The training split of the example data as one batch."""
        split = self.data.splits["train"]
        transform = self.task.transform(self.network.preprocess)
        (batch,) = load_batches(split, transform, range(len(split)), len(split))
        if batch.bad or len(batch) != COUNT:
            raise Broken(f"{len(batch)} of {COUNT} example images can be read: {batch.bad[:1]}")
        return batch

    @cached_property
    def outputs(self) -> Outputs:
        """What the network returns for the batch, with noise that tells the samples apart."""
        with inference_mode_of(self.network.module):
            outputs = self.network.forward(self.batch.inputs)
        generator = torch.Generator().manual_seed(4)
        noise = torch.randn(outputs.main.shape, generator=generator)
        return Outputs(outputs.main + noise, outputs.auxiliary)

    def new_metric(self) -> Metric:
        """Return a metric of nothing yet, with one of a user's beside the task's own."""
        return self.task.metric(self.data.schema, torch.device("cpu"), {OWN: _mean})

    def metric(self, cuts: Sequence[int] = (), outputs: Outputs | None = None) -> Metric:
        """Return a metric of the whole batch, or of its first samples cut into batches."""
        metric = self.new_metric()
        self.update(metric, cuts or (COUNT,), outputs=outputs)
        return metric

    def update(
        self, metric: Metric, cuts: Sequence[int], first: int = 0, outputs: Outputs | None = None
    ) -> None:
        """Accumulate samples from the `first` on, in batches of these sizes."""
        for size in cuts:
            rows = slice(first, first + size)
            metric.update(rows_of(outputs or self.outputs, rows), self.batch.targets[rows])
            first += size


def _mean(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.double().mean() + len(targets)


def rows_of(outputs: Outputs, rows: slice) -> Outputs:
    """Return the outputs of some samples."""
    auxiliary = tuple((output[rows], weight) for output, weight in outputs.auxiliary)
    return Outputs(outputs.main[rows], auxiliary)
