"""Read and transform samples of a split; unreadable images are returned as `BadImage`."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from zoo.data.augment import Draw
from zoo.data.decode import DecodedImage, UnreadableImage
from zoo.data.images import check_channels
from zoo.data.split import Split
from zoo.data.transforms import at_least, prepare
from zoo.errors import DataError
from zoo.spec import Preprocess


@dataclass(frozen=True)
class BadImage:
    """An image that could not be read.

    Args:
        path: of the file, or another identifier of the image.
        reason: why, without the path.
    """

    path: str
    reason: str


@dataclass(frozen=True)
class Sample:
    """An image and its target as tensors.

    Args:
        input: `[channels, height, width]`: uint8, or floats that are normalized already.
        target: of the image; its type depends on the task.
        index: position in the split.
        digest: sha256 of the content; empty unless requested.
        incomplete: path of a file that lacks its last bytes; None for any other.
    """

    input: Tensor
    target: Any
    index: int
    digest: bytes = b""
    incomplete: str | None = None


@dataclass(frozen=True)
class SampleTransform:
    """Transform a decoded image and its target to tensors; tasks with spatial targets extend it.

    Must be picklable, for worker processes.

    Args:
        preprocess: size, crop and interpolation.
    """

    preprocess: Preprocess

    def __call__(
        self, image: Image.Image | DecodedImage, target: Any, index: int, draw: Draw | None = None
    ) -> tuple[Tensor, Any]:
        """Transform an image and its target together.

        Args:
            image: of mode RGB.
            target: as the split gives it.
            index: of the sample in its split.
            draw: the epoch's augmentation; None for none.

        Returns:
            `[channels, height, width]` uint8, and the target.

        Raises:
            DataError: they cannot be transformed.
        """
        if draw is None:
            return prepare(image, self.preprocess), target
        return draw(image, self.preprocess, index), target

    def collate(self, targets: Sequence[Any]) -> Tensor:
        """Stack the targets of a batch, `[samples, ...]`; class indices become int64."""
        if not targets:
            return torch.zeros(0, dtype=torch.int64)
        return torch.stack([torch.as_tensor(target) for target in targets])


def read_sample(
    split: Split,
    transform: SampleTransform,
    index: int,
    draw: Draw | None = None,
    digest: bool = False,
) -> Sample | BadImage:
    """Read one sample of a split.

    A function of its arguments alone: the result is the same in every process.

    Args:
        split: to read from.
        transform: from image and target to tensors.
        index: position in the split.
        draw: the epoch's augmentation; None for none.
        digest: whether to digest the content, the same bytes that are decoded.
    """
    preprocess, content_digest = transform.preprocess, b""
    if preprocess.ranges:
        split = split.with_ranges(preprocess.ranges)
    try:
        min_size = draw.at_least(preprocess) if draw else at_least(preprocess)
        if digest:
            content = split.content(index)
            content_digest = sha256(content).digest()
            image, target = split.sample(index, min_size, content)
        else:
            with draw.while_reading(index) if draw else contextlib.nullcontext():
                image, target = split.sample(index, min_size)
        if isinstance(image, Tensor):
            check_shape(image, preprocess)
            return Sample(image.float(), target, index)
        damaged = isinstance(image, DecodedImage) and image.incomplete
        pixels, target = transform(image, target, index, draw)
        check_channels(pixels, preprocess)
    except UnreadableImage as error:
        return BadImage(split.where(index), error.reason)
    except DataError as error:
        return BadImage(split.where(index), error.message)
    incomplete = split.where(index) if damaged else None
    return Sample(pixels, target, index, content_digest, incomplete)


def check_shape(image: Tensor, preprocess: Preprocess) -> None:
    """Check that a prepared tensor has the network's input shape.

    Raises:
        DataError: it has another shape.
    """
    expected = (preprocess.channels, preprocess.height, preprocess.width)
    if tuple(image.shape) != expected:
        message = f"it is {list(image.shape)}, and the network sees {list(expected)}"
        raise DataError(f"{message}; zoo.transform prepares images for it")
