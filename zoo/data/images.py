"""Images passed from Python: one rule of what an image is, for predictions, features, transforms.

Paths, bytes, open files, PIL images, arrays and uint8 tensors are preprocessed alike. Float tensors
are prepared already, by `zoo.transform`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zoo.data.decode import DecodedImage, UnreadableImage, decode, decode_reduced
from zoo.data.pixels import as_image_source, check_float_tensor
from zoo.data.transforms import at_least, denormalize, prepare
from zoo.data.values import Ranges
from zoo.errors import DataError, UsageError
from zoo.spec import Preprocess

BYTES = (bytes, bytearray, memoryview)

# PIL images and open files have one position each, and several threads may read the same one.
_shared_source = threading.Lock()


@dataclass(frozen=True)
class Unreadable:
    """A path that leads to no image, in place of one.

    Args:
        path: as given.
        reason: why, without the path.
    """

    path: str
    reason: str


def as_many(images: Any | Iterable[Any]) -> Iterable[Any]:
    """Return one or many images as an iterable.

    Args:
        images: an image, an iterable of images such as an array of paths, or a batch of images: an
            array `[images, height, width, channels]`, or a tensor
            `[images, channels, height, width]`.

    Raises:
        UsageError: it is none of these.
    """
    if isinstance(images, np.ndarray) and images.dtype.kind in "OU":
        one = not images.ndim  # of paths, as a table's column
    elif isinstance(images, (np.ndarray, Tensor)):
        one = images.ndim != 4
    else:
        one = isinstance(images, (str, *BYTES, PathLike, Image.Image)) or hasattr(images, "read")
    if not one and not isinstance(images, Iterable):
        message = f"a {type(images).__name__} is no image"
        raise UsageError(message, "give a path, bytes, a PIL image, an array or a tensor, or many")
    return [images] if one else images


def name_of(image: Any) -> str:
    """Return the name of an image for messages; `image` if it has none."""
    if isinstance(image, Unreadable):
        return image.path
    if isinstance(image, (str, PathLike)):
        return os.fspath(image)
    return str(getattr(image, "filename", "") or getattr(image, "name", "") or "image")


@dataclass(frozen=True)
class PreparedImage:
    """An image preprocessed for the network.

    Args:
        name: of the original: its path, or `image`.
        pixels: `[channels, height, width]`: uint8, or float32 that is normalized.
        size: width and height of the original, upright.
        preprocess: from the original to `pixels`.
        open: decodes the original at full size, as a PIL image of mode RGB.
        incomplete: whether its file lacks its last bytes.
    """

    name: str
    pixels: Tensor
    size: tuple[int, int]
    preprocess: Preprocess
    open: Callable[[], Image.Image]
    incomplete: bool = False


def prepare_image(image: Any, preprocess: Preprocess) -> PreparedImage:
    """Decode and preprocess an image.

    Args:
        image: a path, bytes, an open file, a PIL image, an array or a tensor.
        preprocess: size, crop and interpolation.

    Raises:
        DataError: it is not an image, or cannot be read.
    """
    if isinstance(image, Unreadable):
        raise UnreadableImage(image.path, image.reason)
    if isinstance(image, Tensor) and image.is_floating_point():
        return _prepared_already(check_float_tensor(image, preprocess), preprocess)
    source = as_image_source(image, preprocess.ranges)
    decoded = _decode(source, at_least(preprocess), preprocess.ranges)
    pixels = check_channels(prepare(decoded, preprocess), preprocess)
    return PreparedImage(
        name_of(image),
        pixels,
        decoded.size,
        preprocess,
        lambda: _decode(source, None, preprocess.ranges).pixels,
        decoded.incomplete,
    )


def _decode(source: Any, least: tuple[int, int] | None, ranges: Ranges) -> DecodedImage:
    """Decode an image, at full size without a least one.

    Raises:
        DataError: it is not an image, or cannot be read.
    """
    if isinstance(source, (str, Path, bytes)):
        return decode_reduced(source, least, ranges)
    with _shared_source:
        return decode_reduced(source, least, ranges)  # from the start of a file


def _prepared_already(pixels: Tensor, preprocess: Preprocess) -> PreparedImage:
    """Return a prepared tensor as an image of its own size."""
    height, width = pixels.shape[1:]
    own = unchanged(preprocess, (height, width))

    def open_pixels() -> Image.Image:
        shown = denormalize(pixels[None], preprocess)[0]
        return decode(as_image_source(shown))

    return PreparedImage("image", pixels, (width, height), own, open_pixels)


def unchanged(preprocess: Preprocess, size: tuple[int, int]) -> Preprocess:
    """Return a preprocess that leaves an image of a height and width as it is."""
    return replace(preprocess, size=size, resize=None, crop="squash")


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
