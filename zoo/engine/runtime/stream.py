"""Read images of any kind for a device, batch by batch as they are needed."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.data.images import PreparedImage, name_of, prepare_image
from zoo.data.threads import read_in_threads
from zoo.engine.runtime.device import reader_threads
from zoo.errors import DataError
from zoo.spec import Preprocess


@dataclass(frozen=True)
class FailedImage:
    """An image that cannot be read.

    Args:
        name: its path, or `image`.
        error: why not.
    """

    name: str
    error: DataError


def read_images(
    images: Iterable[Any], preprocess: Preprocess, device: torch.device, batch_size: int
) -> Iterator[list[PreparedImage | FailedImage]]:
    """Read images in order, in batches, in the threads that read the images of a training.

    Args:
        images: as for `prepare_image`; taken from the iterable as they are needed.
        preprocess: of the network.
        device: that computes on the batches.
        batch_size: images per batch.
    """

    def read(image: Any) -> PreparedImage | FailedImage:
        try:
            return prepare_image(image, preprocess)
        except DataError as error:
            return FailedImage(name_of(image), error)

    remaining = iter(images)
    batches = iter(lambda: list(itertools.islice(remaining, batch_size)), [])
    with closing(read_in_threads(read, batches, *reader_threads(device))) as read_batches:
        yield from read_batches


def stack_images(
    batch: Sequence[PreparedImage | FailedImage],
) -> Iterator[tuple[list[PreparedImage], Tensor]]:
    """Stack the readable images of a batch, those of one shape and type together.

    Yields:
        Consecutive images, and their pixels `[images, channels, height, width]`, channels last in
        memory.
    """
    images = [each for each in batch if isinstance(each, PreparedImage)]
    for _, group in itertools.groupby(images, lambda each: (each.pixels.shape, each.pixels.dtype)):
        alike = list(group)
        # Not by torch, whose threads would then wait for more work, on cores that others need.
        pixels = np.stack([each.pixels.permute(1, 2, 0).numpy() for each in alike])
        yield alike, torch.from_numpy(pixels).permute(0, 3, 1, 2)
