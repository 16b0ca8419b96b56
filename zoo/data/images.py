"""Images passed from Python: paths, bytes, open files, PIL images or arrays."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zoo.data.decode import decode, decode_reduced
from zoo.data.transforms import at_least, prepare
from zoo.data.values import from_array
from zoo.errors import DataError
from zoo.spec import Preprocess


def as_many(images: Any | Iterable[Any]) -> Iterable[Any]:
    """Return one or many images as an iterable."""
    if isinstance(images, np.ndarray):
        one = images.ndim in (2, 3)
    else:
        one = isinstance(images, (str, bytes, Path, Image.Image)) or hasattr(images, "read")
    return [images] if one else images


def name_of(image: Any) -> str:
    """Return the name of an image for messages; `image` if it has none."""
    if isinstance(image, (str, Path)):
        return str(image)
    return str(getattr(image, "filename", "") or getattr(image, "name", "") or "image")


@dataclass(frozen=True)
class PreparedImage:
    """An image preprocessed for the network.

    Args:
        pixels: `[channels, height, width]`, uint8.
        size: width and height of the original, upright.
        open: decodes the original at full size, as a PIL image of mode RGB.
    """

    pixels: Tensor
    size: tuple[int, int]
    open: Callable[[], Image.Image]


def prepare_image(image: Any, preprocess: Preprocess) -> PreparedImage:
    """Decode and preprocess an image.

    Args:
        image: a path, bytes, an open file, a PIL image or an array.
        preprocess: size, crop and interpolation.

    Raises:
        DataError: it cannot be read.
    """
    if isinstance(image, np.ndarray):
        try:
            image = from_array(image, preprocess.ranges)
        except (TypeError, ValueError) as error:
            raise DataError(f"an array {image.shape} {image.dtype} is not an image") from error
    decoded = decode_reduced(image, at_least(preprocess), preprocess.ranges)
    size = decoded.size
    pixels = check_channels(prepare(decoded, preprocess), preprocess)
    return PreparedImage(pixels, size, lambda: decode(_rewound(image), preprocess.ranges))


def _rewound(image: Any) -> Any:
    if hasattr(image, "seek") and hasattr(image, "read"):
        image.seek(0)
    return image


def check_channels(pixels: Tensor, preprocess: Preprocess) -> Tensor:
    """Return a preprocessed image, its number of channels checked.

    Raises:
        DataError: it differs from the network's; images have three, or one after conversion to
            grey.
    """
    if len(pixels) != preprocess.channels:
        hint = "give tensors of floats"
        message = f"an image has {len(pixels)} channels, and the network sees"
        raise DataError(f"{message} {preprocess.channels}", hint)
    return pixels


def prepare_each(images: Any, preprocess: Preprocess, batch_size: int) -> Iterator[Tensor]:
    """Yield images as batches `[n, channels, height, width]`, uint8.

    Raises:
        DataError: an image cannot be read; names it.
    """
    batch: list[Tensor] = []
    for image in as_many(images):
        batch.append(prepare_image(image, preprocess).pixels)
        if len(batch) == batch_size:
            yield torch.stack(batch)
            batch = []
    if batch:
        yield torch.stack(batch)


def noise(count: int, preprocess: Preprocess, seed: int) -> Tensor:
    """Return images of uniform noise, `[count, channels, height, width]`, uint8.

    Args:
        count: number of images.
        preprocess: size and channels of the images.
        seed: of the generator.
    """
    shape = (count, preprocess.channels, preprocess.height, preprocess.width)
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, shape, generator=generator, dtype=torch.uint8)
