"""Sources of training batches: images for the network, or cached features for its heads."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from zoo.data.augment import Draw
from zoo.data.loader import batch_bounds
from zoo.data.schema import Schema
from zoo.data.split import Split
from zoo.engine.features.cache import FeatureSet
from zoo.engine.features.hooks import run_heads
from zoo.engine.runtime.distributed import SINGLE, Ranks
from zoo.engine.runtime.evaluate import evaluate_split, update_metric
from zoo.engine.runtime.network import Network
from zoo.engine.runtime.reader import ImageReader
from zoo.models.freeze import inference_mode_of
from zoo.options import Augmentation
from zoo.seeding import epoch_order
from zoo.tasks.base import Metric, Outputs, SampleResults, UserMetrics

EVALUATION_ROWS = 1024

# Number of batches of the epoch up to and with this one, inputs, and targets.
Batches = Iterator[tuple[int, Any, Tensor]]
OnFirstBatch = Callable[[Tensor, Tensor], None]


class Source(Protocol):
    """Training and validation data of a phase; inputs are opaque to the loop."""

    network: Network
    steps: int

    @property
    def module(self) -> nn.Module:
        """The network's module."""
        ...

    def train_batches(self, epoch: int, first: int = 0) -> Batches:
        """Yield the batches of an epoch from a number on, in an order of seed and epoch."""
        ...

    def forward(self, inputs: Any, through: nn.Module | None = None) -> Outputs:
        """Return the outputs of a training batch."""
        ...

    def validate(self) -> Metric | None:
        """Evaluate the validation split; return None without one."""
        ...


@dataclass(frozen=True)
class PhaseData:
    """Data of a phase, with batch size, augmentation and metrics.

    Args:
        train: training split.
        val: validation split; None without one.
        schema: of the targets.
        seed: of the training.
        batch_size: samples per step.
        augment: augmentation of training images; None for none.
        metrics: the user's own, by name.
        on_first_batch: called with inputs and targets of each batch; None without observers.
        ranks: of the processes that share each batch.
        samples: whether the results of each validation sample are recorded.
    """

    train: Split
    val: Split | None
    schema: Schema
    seed: int
    batch_size: int
    augment: Augmentation | None = None
    metrics: UserMetrics | None = None
    on_first_batch: OnFirstBatch | None = None
    ranks: Ranks = SINGLE
    samples: bool = False

    def record_samples(self, metric: Metric, split: Split) -> Metric:
        """Return a new metric that records the results of each sample of a split, if wanted."""
        # A `DataLoader` has no order that its images could be indexed by.
        if self.samples and split.steps(1) is None:
            metric.samples = SampleResults(len(split))
        return metric


class ImageSource:
    """Images for the whole network."""

    def __init__(self, network: Network, data: PhaseData, reader: ImageReader) -> None:
        self.network = network
        self.data = data
        self.reader = reader
        self.steps = reader.steps(data.train)

    @property
    def module(self) -> nn.Module:
        """The network's module."""
        return self.network.module

    def train_batches(self, epoch: int, first: int = 0) -> Batches:
        """Yield images `[n, channels, height, width]` and targets of an epoch.

        Args:
            epoch: counted from 1 over all phases.
            first: number of batches to skip; a user's `DataLoader` yields them all the same.
        """
        data = self.data
        order = epoch_order(len(data.train), data.seed, epoch)
        draw = Draw(data.augment, data.seed, epoch) if data.augment or data.train.draws else None
        bounds = batch_bounds(len(order), data.batch_size)
        if data.ranks.distributed:
            order, bounds = data.ranks.shard_batches(order, bounds)
        own = data.train.steps(data.batch_size) is not None
        skipped = 0 if own else first
        batches = self.reader.read(data.train, order, draw, training=True, bounds=bounds[skipped:])
        for number, batch in enumerate(batches, skipped + 1):
            inputs, targets = batch.inputs, batch.targets
            if not data.ranks.distributed and len(targets) < 1 + bool(batch.bad):
                # None is readable; or one, which batch norm cannot train on.
                continue
            if len(targets) == 1 and batch.bad:
                inputs, targets = inputs[:0], targets[:0]
            if data.on_first_batch is not None and len(targets) and number > first:
                data.on_first_batch(inputs, targets)
            yield number, inputs, targets.to(self.network.device, non_blocking=True)

    def forward(self, inputs: Tensor, through: nn.Module | None = None) -> Outputs:
        """Return the network's outputs of a training batch."""
        return self.network.forward(inputs, training=True, through=through)

    def validate(self) -> Metric | None:
        """Evaluate the validation split; return None without one."""
        data = self.data
        if data.val is None:
            return None
        metric = self.network.task.metric(data.schema, self.network.device, data.metrics)
        metric = data.record_samples(metric, data.val)
        return evaluate_split(self.network, data.val, self.reader, metric, data.ranks)


class FeatureSource:
    """Cached features for the heads; the rest of the network runs once per image."""

    def __init__(
        self, network: Network, data: PhaseData, train: FeatureSet, val: FeatureSet | None
    ) -> None:
        self.network = network
        self.data = data
        self.train, self.val = train, val
        self.bounds = batch_bounds(len(train.row), data.batch_size)
        self.steps = len(self.bounds)

    @property
    def module(self) -> nn.Module:
        """The network's module."""
        return self.network.module

    def train_batches(self, epoch: int, first: int = 0) -> Batches:
        """Yield features by head and targets, in the same batches and order as the images."""
        order = torch.tensor(epoch_order(len(self.train.row), self.data.seed, epoch))
        for number, (start, end) in enumerate(self.bounds[first:], first + 1):
            images = self.train.row[order[start:end]]
            images = images[images >= 0]
            if len(images):
                view = (epoch - 1) % self.train.views
                targets = self.train.targets[images.to(self.network.device)]
                yield number, self.train.read(images, view), targets

    def forward(self, inputs: Mapping[str, Tensor], through: nn.Module | None = None) -> Outputs:
        """Return the heads' outputs of a training batch of features."""
        return run_heads(self.network, inputs, training=True)

    def validate(self) -> Metric | None:
        """Evaluate the validation split; return None without one."""
        if self.val is None or self.data.val is None:
            return None
        return self.evaluate(self.val, self.data.val)

    def new_metric(self) -> Metric:
        """Return a new metric of the data."""
        data = self.data
        return self.network.task.metric(data.schema, self.network.device, data.metrics)

    def evaluate(self, features: FeatureSet, split: Split | None = None) -> Metric:
        """Evaluate a split on its cached features.

        Args:
            features: of the split.
            split: whose samples' results may be recorded; None to record none.
        """
        metric = self.new_metric()
        if split is not None:
            metric = self.data.record_samples(metric, split)
        positions = torch.nonzero(features.row >= 0).flatten()
        with inference_mode_of(self.module):
            # If targets are maps, outputs are as large, and a batch of them limits memory.
            rows = EVALUATION_ROWS if features.targets.ndim == 1 else self.data.batch_size
            for first in range(0, len(features), rows):
                images = torch.arange(first, min(first + rows, len(features)))
                targets = features.targets[first : first + rows]
                outputs = run_heads(self.network, features.read(images), False)
                update_metric(self.network, metric, positions[images], outputs, targets)
        return metric
