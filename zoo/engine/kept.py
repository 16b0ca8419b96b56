"""What the loop trains on where only heads train: kept features, for which the rest ran once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zoo.data.loader import Batch, batch_bounds, epoch_order
from zoo.data.split import Split
from zoo.engine.device import autocast
from zoo.engine.learners import Pictures, Task
from zoo.engine.metrics import Meter
from zoo.engine.network import Network
from zoo.engine.observe import FirstBatch
from zoo.errors import DataError
from zoo.models.freeze import in_use
from zoo.models.heads import resolve_head
from zoo.models.outputs import Logits

KEEP_LIMIT = 4 << 30

Wrap = Callable[[Iterator[Batch], int, str], Iterator[Batch]]


@dataclass
class Kept:
    """Features of a split: what arrived at each head, once for each image.

    Args:
        features: by head path, `[images, ...]`, on the network's device.
        labels: `[images]`.
        row: of each position in the split; -1 for an image that could not be read.
    """

    features: dict[str, Tensor]
    labels: Tensor
    row: Tensor


class Tap:
    """Takes what enters and what leaves each head as the network runs."""

    def __init__(self, module: nn.Module, paths: Sequence[str]) -> None:
        self.seen: dict[str, Tensor] = {}
        self.said: dict[str, Tensor] = {}
        self.handles = [
            module.get_submodule(path).register_forward_hook(self._hook(path)) for path in paths
        ]

    def _hook(self, path: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def take(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self.seen[path] = inputs[0].detach()
            self.said[path] = output.detach()

        return take

    def __enter__(self) -> Tap:
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self.handles:
            handle.remove()


def _heads_alone(network: Network, features: dict[str, Tensor], training: bool) -> Logits:
    """Run the heads on features."""
    with autocast(network.device, network.precision):
        said = {
            path: network.module.get_submodule(path)(inputs) for path, inputs in features.items()
        }
    return _logits_of(network, said, training)


def _logits_of(network: Network, said: dict[str, Tensor], training: bool) -> Logits:
    """Return what the heads said, by path in any order, as what the network says."""
    paths = {resolve_head(network.module, head.path): head for head in network.heads}
    (_, main), *others = [(head, said[path]) for path, head in paths.items() if path in said]
    extra = tuple((logits, head.loss_weight) for head, logits in others) if training else ()
    return Logits(main, extra)


def why_not_keep(network: Network, batch: Batch, images: int) -> str | None:
    """Say why features cannot be kept; None where heads on them give what the network gives.

    It is proven on a batch, in eval mode and as in training, and not assumed from a structure.

    Args:
        network: frozen by the policy `head`.
        batch: some images.
        images: how many features would be kept.
    """
    if any(head.role == "distill" for head in network.heads):
        return "the network combines its heads in evaluation"
    paths = [resolve_head(network.module, head.path) for head in network.heads]
    for training in (False, True):
        network.module.train(training)
        with torch.no_grad(), Tap(network.module, paths) as tap:
            whole = network.logits(batch.images, training)
            seen = {path: tap.seen[path] for path in paths if path in tap.seen}
            if paths[0] not in seen:
                return "nothing arrives at the head"
            # In training a head may drop some of its features, never the same twice.
            alone = (
                _logits_of(network, tap.said, training)
                if training
                else _heads_alone(network, seen, training)
            )
        pairs = [(whole.main, alone.main)]
        pairs += [(a, b) for (a, _), (b, _) in zip(whole.extra, alone.extra, strict=False)]
        if len(whole.extra) != len(alone.extra):
            return "the heads alone give other outputs than the network"
        for expected, found in pairs:
            if expected.shape != found.shape or not torch.allclose(
                expected.float(), found.float(), rtol=1e-4, atol=1e-4
            ):
                return "the network does more after its head"
    size = sum(features[0].numel() * features.element_size() for features in seen.values())
    if size * images > KEEP_LIMIT:
        return f"features of {images:,} images take more than {KEEP_LIMIT >> 30} GiB"
    return None


def keep_features(
    network: Network,
    split: Split,
    pictures: Pictures,
    wrap: Wrap,
    training: FirstBatch | None = None,
) -> Kept:
    """Run a split through the frozen network once, and keep what arrives at its heads.

    Args:
        network: frozen by the policy `head`.
        split: whose images.
        pictures: how they are read.
        wrap: shows progress.
        training: of the training split, where auxiliary heads are wanted too, shows observers the
            first batch; None for another split.

    Raises:
        DataError: an image cannot be read, and that is not to be skipped.
    """
    paths = [resolve_head(network.module, head.path) for head in network.heads]
    network.module.train(training is not None)
    kept: dict[str, Tensor] = {}
    labels: list[Tensor] = []
    row = torch.full((len(split),), -1, dtype=torch.int64)
    done = 0
    batches = pictures.read(split, range(len(split)), network)
    with torch.no_grad(), Tap(network.module, paths) as tap:
        for batch in wrap(batches, pictures.steps(split), f"features of {split.name}"):
            if training is not None:
                training.show(batch.images, batch.labels)
            tap.seen.clear()
            network.logits(batch.images, training is not None)
            rows = slice(done, done + len(batch.labels))
            for path in paths:
                if path in tap.seen:
                    new = tap.seen[path]
                    if path not in kept:
                        kept[path] = new.new_empty((len(split), *new.shape[1:]))
                    kept[path][rows] = new
            row[batch.indices] = torch.arange(rows.start, rows.stop)
            labels.append(batch.labels)
            done = rows.stop
    if not done:
        raise DataError(f"no image of the {split.name} split can be read")
    features = {path: tensor[:done] for path, tensor in kept.items()}
    return Kept(features, torch.cat(labels).to(network.device), row)


class FeatureLearner:
    """Kept features through the heads; the rest of the network ran once."""

    def __init__(self, network: Network, task: Task, train: Kept, val: Kept) -> None:
        self.network = network
        self.module = network.module
        self.task = task
        self.train, self.val = train, val
        self.bounds = batch_bounds(len(train.row), task.batch_size)
        self.steps = len(self.bounds)

    def train_batches(self, epoch: int) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
        """Yield features by head and labels, batched and ordered as the images would be."""
        order = torch.tensor(epoch_order(len(self.train.row), self.task.seed, epoch))
        for first, last in self.bounds:
            rows = self.train.row[order[first:last]]
            rows = rows[rows >= 0].to(self.network.device)
            if len(rows):
                features = {path: kept[rows] for path, kept in self.train.features.items()}
                yield features, self.train.labels[rows]

    def logits(self, inputs: dict[str, Tensor], training: bool) -> Logits:
        """Run the heads on features."""
        return _heads_alone(self.network, inputs, training)

    def validate(self) -> Meter:
        """Count the validation split."""
        meter = Meter(self.task.classes, self.network.device, self.task.metrics)
        with in_use(self.module):
            for first in range(0, len(self.val.labels), 1024):
                rows = slice(first, first + 1024)
                features = {path: kept[rows] for path, kept in self.val.features.items()}
                meter.update(self.logits(features, training=False).main, self.val.labels[rows])
        return meter
