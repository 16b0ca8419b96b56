"""From a decoded picture to what a network sees, as torchvision and timm publish it.

In two steps, so that pictures travel and are kept as bytes: `prepare` gives uint8 pixels for each
picture, and `normalize` turns a batch of them into floats on the device that computes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as vision

from zoo.data.decode import MAX_PIXELS, decode
from zoo.errors import DataError
from zoo.spec import Preprocess


def prepare(image: Image.Image, preprocess: Preprocess) -> Tensor:
    """Resize and crop a picture.

    `resize` is the length that the shorter side of `size` is scaled to before the crop; the other
    side of a `size` that is not square is scaled with it. `center` scales the picture, its
    proportions kept, until it covers that, `border` until it fits into it, and `squash` scales
    each side on its own. Then the center of `size` is cut out; what the picture does not fill is
    the mean colour in `border`, and black in the others, as timm and torchvision have it.

    Args:
        image: of mode RGB.
        preprocess: which size, crop and interpolation.

    Returns:
        `[channels, height, width]` uint8, in the memory order of the picture, which is channels
        last; one channel is grey.

    Raises:
        DataError: the picture is so narrow that resizing it would take all memory.
    """
    interpolation = InterpolationMode(preprocess.interpolation)
    height, width = _scaled_size(image, preprocess)
    if height * width > MAX_PIXELS:
        raise DataError(f"{image.width} x {image.height} pixels are too narrow to resize")
    image = vision.resize(image, [height, width], interpolation=interpolation, antialias=True)
    if preprocess.crop == "border":
        image = _pad(image, preprocess)
    image = vision.center_crop(image, [preprocess.height, preprocess.width])
    if preprocess.channels == 1:
        image = image.convert("L")
    pixels: Tensor = vision.pil_to_tensor(image)
    return pixels


def _scaled_size(image: Image.Image, preprocess: Preprocess) -> tuple[int, int]:
    """Return the height and width that a picture has before the crop."""
    size = preprocess.height, preprocess.width
    assert preprocess.resize is not None
    target = [side * preprocess.resize // min(size) for side in size]
    if preprocess.crop == "squash":
        return target[0], target[1]
    ratios = [image.height / target[0], image.width / target[1]]
    if preprocess.crop == "border":
        ratio = max(ratios)
        return max(round(image.height / ratio), 1), max(round(image.width / ratio), 1)
    if preprocess.height == preprocess.width:
        # Rounded down, as torchvision does; timm does so too, but only where `size` is square.
        short, long = sorted(image.size)
        longer = preprocess.resize * long // short
        tall = image.height > image.width
        return (longer, preprocess.resize) if tall else (preprocess.resize, longer)
    ratio = min(ratios)
    return round(image.height / ratio), round(image.width / ratio)


def _pad(image: Image.Image, preprocess: Preprocess) -> Image.Image:
    """Fill up to `size` with the mean colour."""
    across = max(preprocess.width - image.width, 0)
    down = max(preprocess.height - image.height, 0)
    margins = [across // 2, down // 2, (across + 1) // 2, (down + 1) // 2]
    mean = preprocess.mean * 3 if preprocess.channels == 1 else preprocess.mean
    color = [round(255 * value) for value in mean]
    padded: Image.Image = vision.pad(image, margins, fill=color)
    return padded


def normalize(batch: Tensor, preprocess: Preprocess, dtype: torch.dtype = torch.float32) -> Tensor:
    """Turn bytes into what weights were trained on, on the device that they are on.

    Args:
        batch: `[images, channels, height, width]`, uint8.
        preprocess: whose mean and std.
        dtype: of the result; the arithmetic is in float32 whatever it is.

    Returns:
        A new tensor in the batch's memory format.
    """
    mean, std = _constants(preprocess.mean, preprocess.std, batch.device)
    return batch.to(torch.float32).div_(255).sub_(mean).div_(std).to(dtype)


def denormalize(batch: Tensor, preprocess: Preprocess) -> Tensor:
    """Turn what `normalize` gave into bytes again, for people to look at.

    Args:
        batch: `[images, channels, height, width]`: floats, or bytes, which stay as they are.
        preprocess: whose mean and std.

    Returns:
        uint8; what is out of range is black or white.
    """
    if batch.dtype == torch.uint8:
        return batch
    mean, std = _constants(preprocess.mean, preprocess.std, batch.device)
    pixels = batch.to(torch.float32).mul(std).add_(mean).mul_(255).nan_to_num_(0.0)
    return pixels.round_().clamp_(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class Transform:
    """From a picture to what a network sees, for a `Dataset` of one's own.

    Args:
        preprocess: size, crop, interpolation, mean and std.
    """

    preprocess: Preprocess

    def __call__(self, picture: Any) -> Tensor:
        """Prepare and normalize a picture.

        Args:
            picture: a path, bytes, an open file or a PIL image.

        Returns:
            `[channels, height, width]`, float32.

        Raises:
            DataError: it cannot be read.
        """
        pixels = prepare(decode(picture), self.preprocess)
        return normalize(pixels[None], self.preprocess)[0]


@lru_cache(maxsize=16)
def _constants(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Keep the constants on their device: copying them for every batch would wait for it."""
    to_channels = [torch.tensor(values).view(-1, 1, 1).to(device) for values in (mean, std)]
    return to_channels[0], to_channels[1]
