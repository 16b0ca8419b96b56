"""One sample of a split, read and transformed; what cannot be read comes back as data."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

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
        path: of the file, or another name that identifies the image.
        reason: what is wrong with it, without its name.
    """

    path: str
    reason: str


@dataclass(frozen=True)
class Sample:
    """An image and its target, as network and loss take them.

    Args:
        input: `[channels, height, width]`: uint8, or floats that are normalized already.
        target: of the image; what it is depends on the task.
        index: its position in the split.
        digest: sha256 of the content that was read; empty where it was not requested.
    """

    input: Tensor
    target: Any
    index: int
    digest: bytes = b""


@dataclass(frozen=True)
class SampleTransform:
    """From a decoded image and its target to tensors; a task whose target is spatial extends it.

    It is sent to worker processes, so it must pickle.

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

    A function of its arguments alone, so it gives the same in whichever process it runs.

    Args:
        split: where the sample is.
        transform: makes tensors of it.
        index: its position in the split.
        draw: the epoch's augmentation; None for none.
        digest: whether to digest the content, the same bytes that are decoded.
    """
    preprocess, content_digest = transform.preprocess, b""
    try:
        enough = draw.at_least(preprocess) if draw else at_least(preprocess)
        if digest:
            content = split.content(index)
            content_digest = sha256(content).digest()
            image, target = split.sample(index, enough, content)
        else:
            with draw.while_reading(index) if draw else contextlib.nullcontext():
                image, target = split.sample(index, enough)
        if isinstance(image, Tensor):
            check_shape(image, preprocess)
            return Sample(image.float(), target, index)
        pixels, target = transform(image, target, index, draw)
        check_channels(pixels, preprocess)
    except UnreadableImage as error:
        return BadImage(split.where(index), error.reason)
    except DataError as error:
        return BadImage(split.where(index), error.message)
    return Sample(pixels, target, index, content_digest)


def check_shape(image: Tensor, preprocess: Preprocess) -> None:
    """Refuse a tensor that was prepared elsewhere, for another input.

    Raises:
        DataError: its shape is not the network's input.
    """
    wanted = (preprocess.channels, preprocess.height, preprocess.width)
    if tuple(image.shape) != wanted:
        message = f"it is {list(image.shape)}, and the network sees {list(wanted)}"
        raise DataError(f"{message}; zoo.transform gives what it sees")


class SplitDataset(Dataset[Sample | BadImage]):
    """A split as torch's `DataLoader` takes it."""

    def __init__(
        self,
        split: Split,
        transform: SampleTransform,
        draw: Draw | None = None,
        digest: bool = False,
    ) -> None:
        self.split = split
        self.transform = transform
        self.draw = draw
        self.digest = digest

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> Sample | BadImage:
        return read_sample(self.split, self.transform, index, self.draw, self.digest)
