"""What the loop trains on where features change: pictures through the whole network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from zoo.data.augment import Draw
from zoo.data.dataset import check_shape
from zoo.data.image_cache import Bounds, KeptPictures
from zoo.data.loader import Batch, batch_bounds, epoch_order, load_batches
from zoo.data.split import Split
from zoo.data.user_dataset import LoaderSplit, OwnSplit
from zoo.engine.run.observers import FirstBatch
from zoo.engine.runtime.device import reading
from zoo.engine.runtime.distributed import ALONE, Ranks
from zoo.engine.runtime.network import Network
from zoo.errors import DataError
from zoo.models.freeze import in_use
from zoo.options import Augmentation
from zoo.tasks.classification.metrics import Meter, Metrics
from zoo.tasks.classification.outputs import Logits


@dataclass
class Pictures:
    """Reads splits as batches, and keeps account of images that cannot be read.

    Args:
        batch_size: images per batch.
        workers: processes that decode; with none, threads of this one do where they can.
        bad_images: `error` stops at the first, `skip` leaves them out.
        bad: why, by path, for those met so far.
        kept: those that need no decoding any more; None decodes each time.
    """

    batch_size: int
    workers: int
    bad_images: str
    bad: dict[str, str] = field(default_factory=dict)
    kept: KeptPictures | None = None

    def steps(self, split: Split) -> int:
        """How many batches a split makes in training."""
        if isinstance(split, LoaderSplit):
            return len(split.loader)
        return len(batch_bounds(len(split), self.batch_size))

    def read(
        self,
        split: Split,
        order: Sequence[int],
        network: Network,
        draw: Draw | None = None,
        digest: bool = False,
        training: bool = False,
        bounds: Bounds | None = None,
    ) -> Iterator[Batch]:
        """Yield the images of a split in an order, which a `DataLoader` decides by itself.

        Args:
            split: where the images are.
            order: positions in it.
            network: for which they are prepared.
            draw: changes them at random; None leaves them as they are.
            digest: whether to digest their content too.
            training: whether a single image left over joins the batch before.
            bounds: where the order is cut; each cut then gives a batch, though it be empty.

        Raises:
            DataError: an image cannot be read and `bad_images` is `error`.
        """
        if isinstance(split, LoaderSplit):
            for images, labels in split.batches():
                if len(images):
                    _check_first(images, network)
                yield Batch(images, labels, torch.arange(len(labels)))
            return
        if draw is None and isinstance(split, OwnSplit):
            # What a Dataset draws is then the same each time, whoever reads it.
            draw = Draw(None, seed=0, epoch=0)
        for batch in self._batches(split, order, network, draw, digest, training, bounds):
            for bad in batch.bad:
                if self.bad_images == "error":
                    hint = "remove it, or give --bad-images skip"
                    raise DataError(f"cannot read {bad.path}: {bad.reason}", hint)
                self.bad[bad.path] = bad.reason
            if len(batch.labels) or bounds is not None:
                yield batch

    def _batches(
        self,
        split: Split,
        order: Sequence[int],
        network: Network,
        draw: Draw | None,
        digest: bool,
        training: bool,
        bounds: Bounds | None,
    ) -> Iterator[Batch]:
        """Decode batches, or take them from where they are kept."""
        pinned = network.device.type == "cuda"
        threads, ahead = reading(network.device)

        def load(order: Sequence[int], bounds: Bounds) -> Iterator[Batch]:
            return load_batches(
                split,
                network.preprocess,
                order,
                self.batch_size,
                self.workers,
                pin_memory=pinned,
                draw=draw,
                bounds=bounds,
                digest=digest,
                threads=0 if self.workers else threads,
                ahead=ahead,
            )

        if bounds is None:
            bounds = batch_bounds(len(order), self.batch_size, training)
        still = draw is None and not digest
        kept = self.kept.split(split, network.preprocess) if self.kept and still else None
        if kept is None:
            return load(order, bounds)
        return kept.read(order, bounds, load, pinned)


def _check_first(images: Tensor, network: Network) -> None:
    """Refuse batches of a `DataLoader` that another network than this one sees.

    Raises:
        DataError: says what it sees.
    """
    try:
        check_shape(images[0], network.preprocess)
    except DataError as error:
        raise DataError(f"an image of the DataLoader is not for this network: {error}") from error


def count(
    network: Network,
    split: Split,
    pictures: Pictures,
    classes: int,
    metrics: Metrics | None = None,
    ranks: Ranks = ALONE,
) -> Meter:
    """Run a split through a network in eval mode, and count what it says.

    Where there are several processes, each runs its part of the split, and all are counted.
    """
    meter = Meter(classes, network.device, metrics)
    with in_use(network.module):
        for batch in pictures.read(split, ranks.share(range(len(split))), network):
            labels = batch.labels.to(network.device, non_blocking=True)
            said = network.logits(batch.images, pad_to=pictures.batch_size)
            meter.update(said.main, labels)
    return ranks.total(meter)


@dataclass(frozen=True)
class Task:
    """What a learner is to learn.

    Args:
        train: what it trains on.
        val: what it is validated on.
        classes: how many there are.
        seed: of all randomness.
        batch_size: images per step.
        augment: what is done to training pictures; None for nothing.
        metrics: of the user's own, by name.
        first: shows observers the first batch of training pictures; None where there are none.
        ranks: this process among those that share each batch.
    """

    train: Split
    val: Split
    classes: int
    seed: int
    batch_size: int
    augment: Augmentation | None = None
    metrics: Metrics | None = None
    first: FirstBatch | None = None
    ranks: Ranks = ALONE


class PictureLearner:
    """Every image through the whole network, in every epoch."""

    def __init__(self, network: Network, task: Task, pictures: Pictures) -> None:
        self.network = network
        self.module = network.module
        self.task = task
        self.pictures = pictures
        self.steps = pictures.steps(task.train)

    def train_batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the images of an epoch, `[images, channels, height, width]`, and their labels."""
        task = self.task
        order = epoch_order(len(task.train), task.seed, epoch)
        # A Dataset of the user's own may draw too.
        drawing = task.augment or isinstance(task.train, OwnSplit)
        draw = Draw(task.augment, task.seed, epoch) if drawing else None
        bounds = None
        if task.ranks.several:
            whole = batch_bounds(len(order), task.batch_size)
            order, bounds = task.ranks.share_batches(order, whole)
        for batch in self.pictures.read(
            task.train, order, self.network, draw, training=True, bounds=bounds
        ):
            images, labels = batch.images, batch.labels
            if len(labels) == 1 and batch.bad:
                # What unreadable images left over; batch norm cannot train on one.
                if bounds is None:
                    continue
                images, labels = images[:0], labels[:0]
            if task.first is not None and len(labels):
                task.first.show(images, labels)
            yield images, labels.to(self.network.device, non_blocking=True)

    def logits(self, inputs: Tensor, training: bool) -> Logits:
        """Run a batch through the network."""
        return self.network.logits(inputs, training)

    def validate(self) -> Meter:
        """Count the validation split."""
        task = self.task
        return count(self.network, task.val, self.pictures, task.classes, task.metrics, task.ranks)
