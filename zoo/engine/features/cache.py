"""Features of a frozen network, computed once per image and cached for later trainings."""

from __future__ import annotations

import hashlib
import shutil
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.data.augment import Draw
from zoo.data.bad_images import UnreadableImages, no_readable_image
from zoo.data.loader import Batch, batch_bounds
from zoo.data.split import Split
from zoo.engine.backends.choice import TORCH, engine_of
from zoo.engine.backends.engine import Inputs
from zoo.engine.features.finite import check_features
from zoo.engine.features.hooks import check_head_equivalence
from zoo.engine.features.host_copy import HostCopy
from zoo.engine.features.store import DTYPES, FeatureStore, columns_of
from zoo.engine.features.stream import stream_split
from zoo.engine.runtime.contents import digest_contents
from zoo.engine.runtime.distributed import SINGLE, Ranks, shard
from zoo.engine.runtime.network import Network
from zoo.engine.runtime.reader import ImageReader, raise_unreadable
from zoo.errors import DataError
from zoo.files import canonical_json
from zoo.models.freeze import checking_frozen
from zoo.models.provenance import provenance_of

# Fixed batch sizes of the forward pass: on the CPU, rounding in a kernel depends on the batch size.
# Larger batches are not faster on the CPU, but are on a GPU.
CPU_BATCH, GPU_BATCH = 32, 256
# Limit of features in memory, where the disk is too small.
MEMORY_LIMIT = 4 << 30
# Up to this size a feature set is copied to the device; larger ones are read from the store.
LOAD_LIMIT = 256 << 20
# Targets are in memory, and on the device.
TARGET_LIMIT = 1 << 30

Rounds = Iterator[tuple[Batch | None, Inputs]]
# Of a split, `[images, views]`: rows in the store, -1 for unreadable images.
Rows = NDArray[np.int64]
Wrap = Callable[[Rounds, int, str], Rounds]


def feature_batch(device: torch.device) -> int:
    """Return the batch size of the forward pass on a device."""
    return CPU_BATCH if device.type == "cpu" else GPU_BATCH


def trains_auxiliary(network: Network) -> bool:
    """Whether features are computed in training mode, in which auxiliary heads run."""
    return any(head.role == "aux" for head in network.heads)


@dataclass
class FeatureSet:
    """Features of a split: the inputs of each head, one row per view of an image.

    Args:
        store: that contains them.
        rows: `[images, views]`, row numbers in the store, of readable images.
        targets: `[images, ...]`, on the device.
        row: `[samples]`, row of `rows` for each position in the split; -1 for unreadable images.
        device: that trains.
    """

    store: FeatureStore
    rows: NDArray[np.int64]
    targets: Tensor
    row: Tensor
    device: torch.device
    loaded: dict[str, Tensor] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.rows.size * self.store.row_bytes <= LOAD_LIMIT:
            features = self.store.gather(self.rows.ravel())
            self.loaded = {path: tensor.to(self.device) for path, tensor in features.items()}

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def views(self) -> int:
        """Number of views of each image."""
        return int(self.rows.shape[1])

    def read(self, images: Tensor, view: int = 0) -> dict[str, Tensor]:
        """Return features of some images by head path, on the device.

        Args:
            images: `[n]`, indices among the readable images, on the CPU.
            view: index of the view.
        """
        index = images * self.views + view
        if self.loaded is not None:
            on_device = index.to(self.device)
            return {path: tensor[on_device] for path, tensor in self.loaded.items()}
        features = self.store.gather(self.rows.ravel()[index.numpy()])
        return {path: tensor.to(self.device) for path, tensor in features.items()}

    def column(self, path: str, rows: slice | NDArray[np.int64]) -> Tensor:
        """Return the features of one head, `[rows, width]`.

        Args:
            path: of the head.
            rows: indices of views; the views of an image are consecutive.
        """
        if self.loaded is not None:
            index = rows if isinstance(rows, slice) else torch.from_numpy(rows)
            return self.loaded[path][index].flatten(1)
        return self.store.gather(self.rows.ravel()[rows])[path].flatten(1)


class FeatureCache:
    """Computes the head inputs of a frozen network for images that are not in the store.

    Args:
        network: frozen by the policy `head`.
        reader: of the images.
        store: open.
        wrap: shows progress.
        ranks: this process; rank 0 writes to the store.
        batch: images per forward pass; None for `feature_batch`.
        engine: name of the engine that computes.
    """

    def __init__(
        self,
        network: Network,
        reader: ImageReader,
        store: FeatureStore,
        wrap: Wrap,
        ranks: Ranks = SINGLE,
        batch: int | None = None,
        engine: str = TORCH,
    ) -> None:
        self.network = network
        self.batch = batch or feature_batch(network.device)
        # Unreadable images are collected, and named when all splits are read.
        self.bad_images = reader.bad_images
        self.reader = replace(reader, batch_size=self.batch, cache=None, bad_images="skip")
        self.store = store
        self.wrap = wrap
        self.ranks = ranks
        # Of the images of each split by name, on rank 0; empty where unknown.
        self.digests: dict[str, list[bytes]] = {}
        # Auxiliary heads run in training mode only.
        self.training = trains_auxiliary(network)
        self.engine = engine_of(network, engine, self.batch, self.training)

    def incompatibility(self, split: Split, images: int | None = None) -> str | None:
        """Return why the heads cannot train on features; None where they can.

        Checked once per network and kind of head, and recorded in the store.

        Args:
            split: provides the images for the check.
            images: how many; None for a batch.

        Raises:
            DataError: no image of it can be read.
            WeightsError: features are not finite.
            BrokenBackbone: the network changes what is frozen.
        """
        heads = [type(self.network.module.get_submodule(p)).__name__ for p in self.network.paths]
        kind = canonical_json([heads, provenance_of(self.network.module).new_head.to_dict()])
        if kind not in self.store.checks:
            first = self.first_readable(split, images)
            with checking_frozen(self.network.module):
                reason, features = check_head_equivalence(self.network, first.inputs)
            check_features(self.network, split, first, features)
            if reason is None:
                self.store.columns = columns_of(self._to_store(features, len(first)).wait())
            self.store.record_check(kind, reason)
        return self.store.checks[kind]

    def first_readable(self, split: Split, images: int | None = None) -> Batch:
        """Return the first consecutive images, or what can be read of them.

        Args:
            split: to read.
            images: how many; None for a batch.

        Raises:
            DataError: no image of it can be read.
        """
        count = min(len(split), images or self.batch)
        for first in range(0, len(split), count):
            last = min(first + count, len(split))
            batch = next(self.reader.read(split, range(first, last)), None)
            if batch is not None:
                return batch
        raise self._no_image(split)

    def _no_image(self, split: Split) -> DataError:
        """Return the error of a split without a readable image."""
        if self.bad_images == "error" and self.reader.bad:
            return UnreadableImages(self.reader.bad)
        return no_readable_image(f"the {split.name} split")

    def storage_shortfall(self, images: int) -> str | None:
        """Return why features of so many images cannot be stored; None where they can."""
        size = images * self.store.row_bytes
        if size > MEMORY_LIMIT and self.disk_shortfall(images) is not None:
            return f"features of {images:,} images take {size >> 30:,} GiB, and less is free"
        targets = images * self.network.task.target_bytes(self.network.preprocess)
        if targets > TARGET_LIMIT:
            return f"targets of {images:,} images take {targets >> 20:,} MiB of memory"
        return None

    def disk_shortfall(self, images: int) -> str | None:
        """Return why features of so many images do not fit on the disk; None where they do."""
        folder = self.store.path
        if folder is None:
            return self.store.problem or "the store is in memory"
        there = next(parent for parent in (folder, *folder.parents) if parent.exists())
        free = shutil.disk_usage(there).free
        if images * self.store.row_bytes < free:
            return None
        return f"{free >> 20:,} MiB are free in {folder.parent}"

    def compute(self, split: Split, draws: Sequence[Draw | None] = (None,)) -> FeatureSet | None:
        """Return the features of a split, computing those that are not in the store.

        Args:
            split: to compute.
            draws: augmentation of each view; None for none.

        Returns:
            The features on rank 0; None on other ranks.

        Raises:
            UnreadableImages: images cannot be read, and bad images are errors.
            DataError: no image can be read.
        """
        (rows,) = self.rows([(split, draws)])
        return None if self.ranks.rank else self.feature_set(split, rows)

    def rows(
        self, requests: Sequence[tuple[Split, Sequence[Draw | None]]], total: int | None = None
    ) -> list[Rows]:
        """Compute the features of several splits that are not in the store.

        Args:
            requests: each split, with the augmentation of each view.
            total: number of images read so far, with these; None for these only.

        Returns:
            Of each split the rows in the store, for `feature_set`; those of rank 0 are complete.

        Raises:
            UnreadableImages: images of any split cannot be read, and bad images are errors.
        """
        found = [self._rows(split, draws) for split, draws in requests]
        # The reader itself skips them.
        strict = replace(self.reader, bad_images=self.bad_images)
        raise_unreadable(strict, total or sum(len(split) for split, _ in requests), self.ranks)
        if not self.ranks.rank:
            self.store.flush()
        return found

    def _rows(self, split: Split, draws: Sequence[Draw | None]) -> Rows:
        rows = np.full((len(split), len(draws)), -1, dtype=np.int64)
        stored = len(self.store) > 0
        digests = digest_contents(split) if stored else [b""] * len(split)
        for view, draw in enumerate(draws):
            if stored:
                keys = [_key(content, draw, index) for index, content in enumerate(digests)]
                rows[:, view] = self.store.find(keys)
            label = f"features of {split.name}" + (f" {view + 1}" if len(draws) > 1 else "")
            self._compute_missing(split, rows[:, view], digests, draw, label)
        self.digests[split.name] = digests
        return rows

    def feature_set(self, split: Split, rows: Rows) -> FeatureSet:
        """Return the features of a split, on rank 0.

        Raises:
            DataError: no image can be read.
        """
        readable = (rows >= 0).all(axis=1)
        if not readable.any():
            raise self._no_image(split)
        row = np.where(readable, np.cumsum(readable) - 1, -1)
        targets = self.network.task.split_targets(split, self.reader.transform)
        targets = targets[torch.from_numpy(readable)].to(self.network.device)
        return FeatureSet(
            self.store, rows[readable], targets, torch.from_numpy(row), self.network.device
        )

    def _compute_missing(
        self,
        split: Split,
        rows: NDArray[np.int64],
        digests: list[bytes],
        draw: Draw | None,
        label: str,
    ) -> None:
        """Compute features of images without a row, and set their rows and digests."""
        ranks = self.ranks
        missing = ranks.broadcast(None if ranks.rank else np.flatnonzero(rows < 0).tolist())
        if not missing:
            return
        largest = max(len(shard(missing, rank, ranks.world)) for rank in range(ranks.world))
        rounds = len(batch_bounds(largest, self.batch, training=False))
        shared = ranks.shard(missing)
        computed = stream_split(self.engine, self.reader, split, shared, draw, digest=True)
        padded = _padded(self._copied_to_cpu(computed), rounds)
        for batch, features in self.wrap(padded, rounds, label):
            own = None if batch is None else self._features(split, batch, features)
            for part in ranks.gather(own):
                if part is not None and not ranks.rank:
                    indices, contents, features = part
                    pairs = list(zip(contents, indices, strict=True))
                    keys = [_key(content, draw, index) for content, index in pairs]
                    rows[indices] = self.store.add(keys, features)
                    for content, index in pairs:
                        digests[index] = content

    def _copied_to_cpu(
        self, computed: Iterator[tuple[Batch, Inputs | None]]
    ) -> Iterator[tuple[Batch, dict[str, Tensor]]]:
        """Yield batches with their features on the CPU, in the stored dtype.

        A GPU computes on the next batch meanwhile: its copy starts before, and is awaited after.
        """
        ahead = int(self.network.device.type == "cuda")
        copied: deque[tuple[Batch, HostCopy]] = deque()
        for batch, inputs in computed:
            copy = self._to_store(inputs or {}, len(batch))
            copied.append((batch, copy))
            if len(copied) > ahead:
                batch, copy = copied.popleft()
                yield batch, copy.wait()
        while copied:
            batch, copy = copied.popleft()
            yield batch, copy.wait()

    def _features(
        self, split: Split, batch: Batch, features: dict[str, Tensor]
    ) -> tuple[list[int], tuple[bytes, ...], dict[str, Tensor]]:
        """Return the positions in the split, the digests and the features of a batch."""
        check_features(self.network, split, batch, features)
        return batch.indices.tolist(), batch.digests, features

    def _to_store(self, inputs: Mapping[str, Tensor], count: int) -> HostCopy:
        """Copy the head inputs of the first `count` images to the CPU, in the stored dtype."""
        return HostCopy(
            {
                path: inputs[path][:count].to(_stored_dtype(inputs[path]))
                for path in self.network.paths
                if path in inputs
            }
        )


def _padded(batches: Iterator[tuple[Batch, Inputs]], rounds: int) -> Rounds:
    """Yield batches, then None, so that all processes have the same number of rounds."""
    for _ in range(rounds):
        yield next(batches, (None, {}))
    # Exhaust the reader, so that it can clean up.
    for _ in batches:
        raise AssertionError("more batches than rounds")


def _stored_dtype(features: Tensor) -> torch.dtype:
    return features.dtype if features.dtype in DTYPES else torch.float32


def _key(content: bytes, draw: Draw | None, index: int) -> bytes:
    """Return the key of an image's features: a digest of its content and its augmentation."""
    if draw is None or not content:
        return content
    augmentation = f"{draw.augment} {draw.seed} {draw.epoch} {index}"
    return hashlib.sha256(content + augmentation.encode()).digest()
