"""Compute the features of encoded images that are in memory, as a training does of files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from zoo.data.dataset import SampleTransform
from zoo.data.decode import DecodedImage, UnreadableImage, decode, decode_reduced
from zoo.data.split import Split
from zoo.data.values import Ranges
from zoo.engine.backends.choice import TORCH, Choice, confirm
from zoo.engine.features.cache import FeatureCache, feature_batch
from zoo.engine.features.store import FeatureStore
from zoo.engine.runtime.reader import ImageReader
from zoo.errors import DataError, UsageError
from zoo.inference.predictor import Predictor
from zoo.models.freeze import freeze


@dataclass(frozen=True)
class EncodedImages(Split):
    """Encoded images in memory, as a split.

    Args:
        name: of the split.
        names: of each image, for messages; unique.
        contents: bytes of each image.
        problems: why images are known to be unreadable, by position.
        ranges: of values by type, see `measure_ranges`.
    """

    name: str
    names: Sequence[str]
    contents: Sequence[bytes]
    problems: dict[int, str] = field(default_factory=dict)
    ranges: Ranges = ()
    thread_safe: ClassVar[bool] = True

    @property
    def targets(self) -> Sequence[int]:  # type: ignore[override]
        """A placeholder for each image."""
        return range(len(self.contents))

    def where(self, index: int) -> str:
        """Return the image's name."""
        return self.names[index]

    def content(self, index: int) -> bytes:
        """Return the bytes of an image.

        Raises:
            UnreadableImage: it is known to be unreadable.
        """
        if index in self.problems:
            raise UnreadableImage(self.names[index], self.problems[index])
        return self.contents[index]

    def image(self, index: int) -> Image.Image:
        """Decode an image.

        Raises:
            UnreadableImage: it cannot be read.
        """
        return decode(self.content(index), self.ranges)

    def sample(
        self, index: int, at_least: tuple[int, int] | None = None, content: bytes | None = None
    ) -> tuple[DecodedImage, int]:
        """Decode an image, no larger than needed, and return it with a placeholder.

        Raises:
            UnreadableImage: it cannot be read.
        """
        return decode_reduced(self.content(index), at_least, self.ranges), 0

    def with_ranges(self, ranges: Ranges) -> EncodedImages:
        """Return the split with its images scaled by these ranges."""
        return replace(self, ranges=ranges)


@dataclass(frozen=True)
class Extracted:
    """Features of encoded images.

    Args:
        features: `[readable images, width]` float32 on the CPU.
        readable: `[images]`, whether each image was read.
        bad: reasons by name, of those that were not.
        incomplete: names of JPEG files that lack their last bytes.
    """

    features: Tensor
    readable: NDArray[np.bool_]
    bad: dict[str, str]
    incomplete: tuple[str, ...]


class EncodedExtractor:
    """Computes features of encoded images, with the bytes that `zoo embed` writes for files.

    Args:
        model: a trained one, or a pretrained backbone; its network is frozen.
        batch_size: images per forward pass; None for that of a training.
        workers: number of decoding processes; 0 for threads, None to choose it.
        choice: of the engine, which is checked on the first images; torch if None.

    Attributes:
        choice: of the engine, torch where it cannot compute the network and was not given.
        confirmed: whether it has been checked.

    Raises:
        UsageError: the network does not have exactly one main head.
    """

    def __init__(
        self,
        model: Predictor,
        batch_size: int | None = None,
        workers: int | None = None,
        choice: Choice | None = None,
    ) -> None:
        self.model = model
        self.network = model.network
        self.path = main_head(model)
        self.batch = batch_size or feature_batch(self.network.device)
        self.workers = workers
        self.choice = choice or Choice(TORCH, "by default")
        self.confirmed = self.choice.name == TORCH
        self._width = 0
        freeze(self.network.module)

    def __call__(self, images: EncodedImages) -> Extracted:
        """Return the features of images, in batches of consecutive ones.

        Raises:
            WeightsError: features are not finite.
            BrokenBackbone: the given engine cannot compute the network.
        """
        self.confirm(images)
        with FeatureStore(None) as store:
            reader, cache = self._open(store)
            (by_view,) = cache.rows([(images, (None,))])
            rows = by_view[:, 0]
            stored = rows[rows >= 0]
            features = torch.zeros(0, 0)
            if len(stored):
                features = store.gather(stored)[self.path].flatten(1).float()
                self._width = features.shape[1]
        return Extracted(features, rows >= 0, dict(reader.bad), tuple(sorted(reader.incomplete)))

    def confirm(self, images: EncodedImages) -> None:
        """Check the engine on images, once, unless none of them can be read.

        Raises:
            BrokenBackbone: it is given, and cannot compute the network.
        """
        if self.confirmed:
            return
        with FeatureStore(None) as store:
            _, cache = self._open(store)
            try:
                first = cache.first_readable(images)
            except DataError:
                return
            self.choice = confirm(self.choice, cache.engine, lambda: first.inputs)
        self.confirmed = True

    def _open(self, store: FeatureStore) -> tuple[ImageReader, FeatureCache]:
        """Return a reader of images, and what computes their features by the engine."""
        network = self.network
        transform = SampleTransform(network.preprocess)
        reader = ImageReader(transform, network.device, self.batch, self.workers, "skip")
        cache = FeatureCache(
            network,
            reader,
            store,
            lambda batches, *_: batches,
            batch=self.batch,
            engine=self.choice.name,
        )
        return reader, cache

    def width(self) -> int:
        """Return the number of features, computed of a blank image where none was read so far."""
        if not self._width:
            size = self.network.preprocess.height, self.network.preprocess.width
            file = io.BytesIO()
            Image.new("RGB", size[::-1]).save(file, "PNG")
            self(EncodedImages("blank", ["a blank image"], [file.getvalue()]))
        return self._width


def main_head(model: Predictor) -> str:
    """Return the path of the main head, whose input the features are.

    Raises:
        UsageError: the network does not have exactly one.
    """
    network = model.network
    main = [p for p, head in zip(network.paths, network.heads, strict=True) if head.role == "main"]
    if len(main) != 1:
        count = f"{len(main)} main heads" if main else "no main head"
        message = f"{model.backbone} has {count}, so its features are not defined"
        raise UsageError(message, "choose another backbone")
    return main[0]
