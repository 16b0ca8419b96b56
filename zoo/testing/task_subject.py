"""A task under test: its example data, a network, and the network's outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from torch import Tensor

from zoo.data.loader import Batch, load_batches
from zoo.data.split import ImageData
from zoo.engine.runtime.network import Network
from zoo.models.build import resolve_and_build
from zoo.models.freeze import freeze, inference_mode_of
from zoo.models.provenance import provenance_of
from zoo.tasks.base import BaseTask, Metric, Outputs
from zoo.testing.findings import CheckFailed
from zoo.testing.subject import Subject

COUNT = 7
USER_METRIC = "mean_output"


@dataclass
class TaskSubject:
    """A task under test; data and network are created on first access.

    Args:
        name: the name that it is registered under.
        task: its implementation.
        backbone_subject: a backbone to run it with.
        causes: as of `Subject`.
    """

    name: str
    task: BaseTask
    backbone_subject: Subject
    causes: dict[str, str] = field(default_factory=dict)

    @cached_property
    def data(self) -> ImageData:
        """Its example data, at the input size of the network."""
        preprocess = self.backbone_subject.small_input.apply(
            self.backbone_subject.backbone
        ).preprocess
        return self.task.example_data(preprocess, COUNT, seed=2)

    @cached_property
    def network(self) -> Network:
        """An untrained network with heads for the example data."""
        backbone, weights = self.backbone_subject.backbone, str(self.backbone_subject.calibrated)
        outputs, options = self.data.schema.outputs, self.backbone_subject.small_input
        model = resolve_and_build(backbone, weights, outputs, seed=1, options=options)
        freeze(model, policy="head")
        made = provenance_of(model)
        heads, cpu = made.backbone.heads, torch.device("cpu")
        return Network(model, heads, made.preprocess, cpu, "fp32", self.task)

    @cached_property
    def batch(self) -> Batch:
        """The training split of the example data as one batch."""
        split = self.data.splits["train"]
        transform = self.task.transform(self.network.preprocess)
        (batch,) = load_batches(split, transform, range(len(split)), len(split))
        if batch.bad or len(batch) != COUNT:
            raise CheckFailed(
                f"{len(batch)} of {COUNT} example images can be read: {batch.bad[:1]}"
            )
        return batch

    @cached_property
    def outputs(self) -> Outputs:
        """The network's outputs for the batch, with noise added so that samples differ."""
        with inference_mode_of(self.network.module):
            outputs = self.network.forward(self.batch.inputs)
        generator = torch.Generator().manual_seed(4)
        noise = torch.randn(outputs.main.shape, generator=generator)
        return Outputs(outputs.main + noise, outputs.auxiliary)

    def new_metric(self) -> Metric:
        """Return an empty metric with an additional user metric."""
        return self.task.metric(self.data.schema, torch.device("cpu"), {USER_METRIC: _mean})

    def metric(self, sizes: Sequence[int] = (), outputs: Outputs | None = None) -> Metric:
        """Return a metric of the whole batch, or of consecutive batches of the given sizes."""
        metric = self.new_metric()
        self.update(metric, sizes or (COUNT,), outputs=outputs)
        return metric

    def update(
        self, metric: Metric, sizes: Sequence[int], first: int = 0, outputs: Outputs | None = None
    ) -> None:
        """Accumulate samples in batches of the given sizes, starting at index `first`."""
        for size in sizes:
            rows = slice(first, first + size)
            metric.update(rows_of(outputs or self.outputs, rows), self.batch.targets[rows])
            first += size


def _mean(outputs: Tensor, targets: Tensor) -> Tensor:
    return outputs.double().mean() + len(targets)


def rows_of(outputs: Outputs, rows: slice) -> Outputs:
    """Return the outputs of some samples."""
    auxiliary = tuple((output[rows], weight) for output, weight in outputs.auxiliary)
    return Outputs(outputs.main[rows], auxiliary)
