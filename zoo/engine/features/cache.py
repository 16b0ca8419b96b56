"""What the loop trains on where only heads train: kept features, for which the rest ran once."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.data.augment import Draw
from zoo.data.decode import UnreadableImage
from zoo.data.loader import Batch, batch_bounds, epoch_order
from zoo.data.split import Split
from zoo.engine.features.hooks import Tap, heads_alone, try_heads
from zoo.engine.features.store import DTYPES, Shelf, columns_of
from zoo.engine.runtime.device import available_cores
from zoo.engine.runtime.distributed import ALONE, Ranks, shard
from zoo.engine.runtime.network import Network
from zoo.engine.training.sources import Pictures, Task
from zoo.errors import DataError
from zoo.files import canonical_json
from zoo.models.freeze import in_use
from zoo.models.provenance import how_made
from zoo.tasks.classification.metrics import Meter
from zoo.tasks.classification.outputs import Logits

# Images in a forward pass that computes features, always as many: on the CPU what a kernel rounds
# to depends on the shape of its batch. More would not be faster there; a GPU wants more.
CPU_BATCH, GPU_BATCH = 32, 256
# Without room on the disk, as much may be kept in memory.
MEMORY_LIMIT = 4 << 30
# As much is copied into the device's memory; what is larger is read where it lies.
LOAD_LIMIT = 256 << 20
DIGESTED_AT_ONCE = 256

Rounds = Iterator[Batch | None]
Wrap = Callable[[Rounds, int, str], Rounds]


def feature_batch(device: torch.device) -> int:
    """Return how many images a forward pass for features takes on a device."""
    return CPU_BATCH if device.type == "cpu" else GPU_BATCH


@dataclass
class Kept:
    """Features of a split: what arrived at each head, once for each image or each view of it.

    Args:
        shelf: where they are.
        rows: `[images, views]`, on the shelf, of those that could be read.
        labels: `[images]`, on the device.
        row: of each position in the split, among these images; -1 for one that cannot be read.
        device: that trains.
    """

    shelf: Shelf
    rows: NDArray[np.int64]
    labels: Tensor
    row: Tensor
    device: torch.device
    loaded: dict[str, Tensor] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.rows.size * self.shelf.row_bytes <= LOAD_LIMIT:
            found = self.shelf.gather(self.rows.ravel())
            self.loaded = {path: tensor.to(self.device) for path, tensor in found.items()}

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def views(self) -> int:
        """How many views of each image there are."""
        return int(self.rows.shape[1])

    def read(self, images: Tensor, view: int = 0) -> dict[str, Tensor]:
        """Return features by head path of some images, on the device.

        Args:
            images: places among those that could be read, `[n]`, on the CPU.
            view: which view of them.
        """
        places = images * self.views + view
        if self.loaded is not None:
            there = places.to(self.device)
            return {path: tensor[there] for path, tensor in self.loaded.items()}
        found = self.shelf.gather(self.rows.ravel()[places.numpy()])
        return {path: tensor.to(self.device) for path, tensor in found.items()}

    def column(self, path: str, places: slice | NDArray[np.int64]) -> Tensor:
        """Return the features of one head, `[rows, width]`, all views of an image in turn.

        Args:
            path: of the head.
            places: which rows.
        """
        if self.loaded is not None:
            index = places if isinstance(places, slice) else torch.from_numpy(places)
            return self.loaded[path][index].flatten(1)
        return self.shelf.gather(self.rows.ravel()[places])[path].flatten(1)


class Keeper:
    """Runs pictures through the frozen part of a network, each of them once for all trainings.

    Args:
        network: frozen by the policy `head`.
        pictures: how they are read.
        shelf: where features are kept; open.
        wrap: shows progress.
        ranks: this process among those that compute together; the first alone keeps.
        batch: images in a forward pass; None for as many as suit the device.
    """

    def __init__(
        self,
        network: Network,
        pictures: Pictures,
        shelf: Shelf,
        wrap: Wrap,
        ranks: Ranks = ALONE,
        batch: int | None = None,
    ) -> None:
        self.network = network
        self.batch = batch or feature_batch(network.device)
        self.pictures = replace(pictures, batch_size=self.batch, kept=None)
        self.shelf = shelf
        self.wrap = wrap
        self.ranks = ranks
        # What arrives at an auxiliary head arrives there in training mode only.
        self.training = any(head.role == "aux" for head in network.heads)

    def why_not(self, split: Split) -> str | None:
        """Say why features cannot be kept; tried on a batch once for each network and kind of head.

        Args:
            split: whose pictures it is tried on.

        Raises:
            DataError: no image of it can be read.
        """
        heads = [type(self.network.module.get_submodule(p)).__name__ for p in self.network.paths]
        kind = canonical_json([heads, how_made(self.network.module).new_head.to_dict()])
        if kind not in self.shelf.proofs:
            first = next(
                self.pictures.read(split, range(min(len(split), self.batch)), self.network), None
            )
            if first is None:
                raise DataError(f"no image of the {split.name} split can be read")
            reason, seen = try_heads(self.network, first.images)
            if reason is None:
                self.shelf.columns = columns_of(self._kept(seen, len(first)))
            self.shelf.prove(kind, reason)
        return self.shelf.proofs[kind]

    def no_room(self, images: int) -> str | None:
        """Say why so many more images cannot be kept; None where there is room for them.

        Where there is not enough on the disk, they are kept in memory if there is room there.
        """
        size = images * self.shelf.row_bytes
        if self.shelf.path is not None:
            free = shutil.disk_usage(self.shelf.path).free
            if size < free:
                return None
            self.shelf.leave_disk(f"{free >> 20:,} MiB are free in {self.shelf.path.parent}")
        if size <= MEMORY_LIMIT:
            return None
        return f"features of {images:,} images take {size >> 30:,} GiB, more than there is room for"

    def keep(self, split: Split, draws: Sequence[Draw | None] = (None,)) -> Kept | None:
        """Keep what arrives at the heads, of pictures that the shelf does not have yet.

        Returns:
            None in all processes but the first.

        Args:
            split: whose pictures.
            draws: how each view of them is changed at random; None leaves them as they are.

        Raises:
            DataError: an image cannot be read, and that is not to be skipped; or not one can.
        """
        rows = np.full((len(split), len(draws)), -1, dtype=np.int64)
        first = not self.ranks.rank
        contents = _digest_contents(split) if len(self.shelf) else None
        for view, draw in enumerate(draws):
            if contents is not None:
                keys = [_key(each, draw, index) for index, each in enumerate(contents)]
                rows[:, view] = self.shelf.find(keys)
            shown = f"features of {split.name}" + (f" {view + 1}" if len(draws) > 1 else "")
            self._compute(split, rows[:, view], draw, shown)
        if not first:
            return None
        self.shelf.flush()
        readable = (rows >= 0).all(axis=1)
        if not readable.any():
            raise DataError(f"no image of the {split.name} split can be read")
        row = np.where(readable, np.cumsum(readable) - 1, -1)
        labels = torch.tensor(split.labels)[torch.from_numpy(readable)]
        device = self.network.device
        return Kept(self.shelf, rows[readable], labels.to(device), torch.from_numpy(row), device)

    def _compute(
        self, split: Split, rows: NDArray[np.int64], draw: Draw | None, shown: str
    ) -> None:
        """Run those pictures that have no row yet, and note their rows."""
        ranks = self.ranks
        missing = ranks.from_first(None if ranks.rank else np.flatnonzero(rows < 0).tolist())
        if not missing:
            return
        network = self.network
        network.module.train(self.training)
        most = max(len(shard(missing, rank, ranks.world)) for rank in range(ranks.world))
        rounds = len(batch_bounds(most, self.batch, training=False))
        batches = self.pictures.read(split, ranks.share(missing), network, draw, digest=True)
        with torch.no_grad(), Tap(network.module, network.paths) as tap:
            for batch in self.wrap(_as_many(batches, rounds), rounds, shown):
                mine = None if batch is None else self._features(batch, draw, tap)
                for found in ranks.gather(mine):
                    if found is not None and not ranks.rank:
                        places, keys, features = found
                        rows[places] = self.shelf.add(keys, features)

    def _features(
        self, batch: Batch, draw: Draw | None, tap: Tap
    ) -> tuple[list[int], list[bytes], dict[str, Tensor]]:
        """Return a batch's places in its split, what it is found by, and its features."""
        tap.seen.clear()
        self.network.logits(batch.images, self.training, pad_to=self.batch)
        places = batch.indices.tolist()
        keys = [_key(d, draw, i) for d, i in zip(batch.digests, places, strict=True)]
        return places, keys, self._kept(tap.seen, len(places))

    def _kept(self, seen: dict[str, Tensor], count: int) -> dict[str, Tensor]:
        """Return what is kept of what arrived at the heads: of so many images, on the CPU."""
        return {
            path: seen[path][:count].to("cpu", _kept_dtype(seen[path]), copy=True)
            for path in self.network.paths
            if path in seen
        }


def _as_many(batches: Iterator[Batch], rounds: int) -> Iterator[Batch | None]:
    """Yield batches, and None after the last, so that all processes have as many rounds."""
    for _ in range(rounds):
        yield next(batches, None)
    # So that what reads them comes to its end.
    for _ in batches:
        raise AssertionError("more batches than rounds")


def _kept_dtype(features: Tensor) -> torch.dtype:
    return features.dtype if features.dtype in DTYPES else torch.float32


def _key(content: bytes, draw: Draw | None, index: int) -> bytes:
    """Return what a picture's features are found by: its content, and how that was changed."""
    if draw is None or not content:
        return content
    changed = f"{draw.augment} {draw.seed} {draw.epoch} {index}"
    return hashlib.sha256(content + changed.encode()).digest()


def _digest_contents(split: Split) -> list[bytes]:
    """Digest the contents of pictures; empty for those that cannot be read."""

    def digest(first: int) -> list[bytes]:
        found = []
        for index in range(first, min(first + DIGESTED_AT_ONCE, len(split))):
            try:
                found.append(hashlib.sha256(split.content(index)).digest())
            except UnreadableImage:
                found.append(bytes(32))
        return found

    # Reading and hashing both let other threads go on.
    with ThreadPoolExecutor(min(available_cores(), 8)) as pool:
        parts = pool.map(digest, range(0, len(split), DIGESTED_AT_ONCE))
        return [each for part in parts for each in part]


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
            images = self.train.row[order[first:last]]
            images = images[images >= 0]
            if len(images):
                view = (epoch - 1) % self.train.views
                labels = self.train.labels[images.to(self.network.device)]
                yield self.train.read(images, view), labels

    def logits(self, inputs: dict[str, Tensor], training: bool) -> Logits:
        """Run the heads on features."""
        return heads_alone(self.network, inputs, training)

    def validate(self) -> Meter:
        """Count the validation split."""
        return self.measure(self.val)

    def measure(self, kept: Kept) -> Meter:
        """Count a split of which features are kept."""
        meter = Meter(self.task.classes, self.network.device, self.task.metrics)
        with in_use(self.module):
            for first in range(0, len(kept), 1024):
                images = torch.arange(first, min(first + 1024, len(kept)))
                labels = kept.labels[first : first + 1024]
                meter.update(self.logits(kept.read(images), training=False).main, labels)
        return meter
