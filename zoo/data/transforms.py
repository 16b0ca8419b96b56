"""From a decoded image to what a network sees, as torchvision and timm publish it.

In two steps, so that images are sent and cached as bytes: `prepare` gives uint8 pixels for each
image, and `normalize` turns a batch of them into floats on the device that computes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as vision

from zoo.data.decode import MAX_PIXELS, DecodedImage, decode_reduced
from zoo.data.geometry import Geometry, geometry_of, target_size
from zoo.errors import DataError
from zoo.spec import Preprocess

# A JPEG is decoded at a scale that leaves both sides at least this many times as long as the resize
# makes them. Measured with EfficientNet-Lite0 on 345 JPEGs, photographs and drawings of 300 to 4000
# pixels, where its logits have a standard deviation of 1.25:
#   times  reduced  most probable class changed  largest change of a logit
#     1      248         9                         1.43
#     2      139         2                         0.24
#     3       82         1                         0.15
#     4       46         1                         0.11
# The one left at 3 and at 4 has its two best logits 0.003 apart. Of 20 large ones Lite2 changed one
# at 2 and none at 3; bf16 in place of fp32 changed one there too, and logits by up to 0.65.
REDUCED = 3


def at_least(preprocess: Preprocess) -> tuple[int, int] | None:
    """Return the width and height that decoding must leave for `prepare` to give the same image.

    Returns:
        What `decode_reduced` takes; None where every pixel counts.
    """
    # It takes single pixels, and averages none.
    if preprocess.interpolation == "nearest":
        return None
    height, width = target_size(preprocess)
    return REDUCED * width, REDUCED * height


def prepare(image: Image.Image | DecodedImage, preprocess: Preprocess) -> Tensor:
    """Resize and crop an image.

    `resize` is the length that the shorter side of `size` is scaled to before the crop; the other
    side of a `size` that is not square is scaled with it. `center` scales the image, its
    proportions preserved, until it covers that, `border` until it fits into it, and `squash` scales
    each side on its own. Then the center of `size` is cut out; what the image does not fill is
    the mean colour in `border`, and black in the others, as timm and torchvision have it.

    Args:
        image: of mode RGB.
        preprocess: which size, crop and interpolation.

    Returns:
        `[channels, height, width]` uint8, in the memory order of the image, which is channels
        last; one channel is grey.

    Raises:
        DataError: the image is so narrow that resizing it would take all memory.
    """
    if not isinstance(image, DecodedImage):
        image = DecodedImage(image, image.size, (0, 0, *image.size))
    geometry = geometry_of(image.size, preprocess)
    if geometry.scaled[0] * geometry.scaled[1] > MAX_PIXELS:
        raise DataError(f"{image.size[0]} x {image.size[1]} pixels are too narrow to resize")
    cut = _resize(image, geometry, preprocess)
    if preprocess.crop == "border":
        cut = _pad(cut, preprocess)
    cut = vision.center_crop(cut, [preprocess.height, preprocess.width])
    if preprocess.channels == 1:
        cut = cut.convert("L")
    pixels: Tensor = vision.pil_to_tensor(cut)
    return pixels


def prepare_source(source: Any, preprocess: Preprocess) -> Tensor:
    """Read and prepare an image, at a reduced scale where that is as good.

    Args:
        source: a path, bytes, an open file or a PIL image.
        preprocess: as for `prepare`.

    Raises:
        DataError: it cannot be read or resized.
    """
    return prepare(decode_reduced(source, at_least(preprocess)), preprocess)


def prepare_mask(mask: Image.Image, preprocess: Preprocess, fill: int) -> Tensor:
    """Resize and crop a mask as `prepare` does its image, each pixel from the nearest.

    Args:
        mask: of mode L, as large as its image.
        preprocess: of the image.
        fill: of what the image does not fill.

    Returns:
        `[height, width]` uint8.
    """
    geometry = geometry_of(mask.size, preprocess)
    cut = mask.resize(geometry.scaled, Image.Resampling.NEAREST).crop(geometry.crop)
    filled = Image.new("L", (preprocess.width, preprocess.height), fill)
    filled.paste(cut, geometry.offset)
    return vision.pil_to_tensor(filled)[0]  # type: ignore[no-any-return]


def _resize(image: DecodedImage, geometry: Geometry, preprocess: Preprocess) -> Image.Image:
    """Scale an image and crop it."""
    kernel = Image.Resampling[preprocess.interpolation.upper()]
    scaled, (left, top, right, bottom) = geometry.scaled, geometry.crop
    if not image.reduced:
        # In full first: to scale the crop alone is quicker, and rounds some values otherwise.
        return image.pixels.resize(scaled, kernel).crop((left, top, right, bottom))
    x0, y0, x1, y1 = image.box
    across, down = (x1 - x0) / scaled[0], (y1 - y0) / scaled[1]
    # Rounding must not lead out of the image.
    x1, y1 = min(x0 + right * across, x1), min(y0 + bottom * down, y1)
    box = (x0 + left * across, y0 + top * down, x1, y1)
    return image.pixels.resize((right - left, bottom - top), kernel, box)


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
    """From an image to what a network sees, for a `Dataset` of one's own.

    Args:
        preprocess: size, crop, interpolation, mean and std.
    """

    preprocess: Preprocess

    def __call__(self, image: Any) -> Tensor:
        """Prepare and normalize an image.

        Args:
            image: a path, bytes, an open file or a PIL image. Of the first three a large JPEG
                is decoded at a reduced scale, as zoo does it everywhere; what PIL has is in full.

        Returns:
            `[channels, height, width]`, float32.

        Raises:
            DataError: it cannot be read.
        """
        pixels = prepare_source(image, self.preprocess)
        return normalize(pixels[None], self.preprocess)[0]


@lru_cache(maxsize=16)
def _constants(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cache mean and std on the device: a copy for every batch would wait for it."""
    to_channels = [torch.tensor(values).view(-1, 1, 1).to(device) for values in (mean, std)]
    return to_channels[0], to_channels[1]
