"""Preprocessing from a decoded image to a network's input, as torchvision and timm publish it.

In two steps, so that images are transferred and cached as bytes: `prepare` returns uint8 pixels of
one image, and `normalize` converts a batch to floats on the computing device.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from zoo.data.decode import MAX_PIXELS, DecodedImage, decode_reduced
from zoo.data.geometry import Geometry, geometry_of, target_size
from zoo.data.pixels import as_image_source, check_float_tensor
from zoo.data.resize import resize
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
    """Return the minimum width and height to decode at, for `prepare` to give the same image.

    Returns:
        `at_least` of `decode_reduced`; None for full resolution.
    """
    # It samples single pixels of the full resolution.
    if preprocess.interpolation == "nearest":
        return None
    height, width = target_size(preprocess)
    return REDUCED * width, REDUCED * height


def prepare(image: Image.Image | DecodedImage, preprocess: Preprocess) -> Tensor:
    """Resize and crop an image.

    `resize` is the length that the shorter side of `size` is scaled to before the crop; the other
    side of a non-square `size` is scaled in proportion. `center` scales the image, keeping its
    aspect ratio, to cover that area, `border` to fit into it, and `squash` scales each side
    independently. Then the center of `size` is cropped; padding is the mean colour in `border`, and
    black in the others, as in timm and torchvision.

    Args:
        image: of mode RGB.
        preprocess: size, crop and interpolation.

    Returns:
        `[channels, height, width]` uint8, channels last in memory; one channel is grey.

    Raises:
        DataError: the image is too narrow to be resized within `MAX_PIXELS`.
    """
    if not isinstance(image, DecodedImage):
        image = DecodedImage(image, image.size, (0, 0, *image.size))
    geometry = geometry_of(image.size, preprocess)
    if geometry.scaled[0] * geometry.scaled[1] > MAX_PIXELS:
        raise DataError(f"{image.size[0]} x {image.size[1]} pixels are too narrow to resize")
    crop, interpolation = geometry.crop, preprocess.interpolation
    pixels = resize(image.decoded, geometry.scaled, crop, interpolation, image.box)
    if geometry.cut != (preprocess.width, preprocess.height):
        pixels = _pad(pixels, geometry, preprocess)
    return _to_tensor(pixels, preprocess)


def prepare_part(
    image: Image.Image, part: tuple[int, int, int, int], preprocess: Preprocess
) -> Tensor:
    """Resize a part of an image to the network's input.

    Args:
        image: of mode RGB.
        part: left, upper, right and lower edge.
        preprocess: size and interpolation.

    Returns:
        As `prepare`.
    """
    size = preprocess.width, preprocess.height
    pixels = resize(image.crop(part), size, (0, 0, *size), preprocess.interpolation)
    return _to_tensor(pixels, preprocess)


def _to_tensor(pixels: NDArray[np.uint8], preprocess: Preprocess) -> Tensor:
    if preprocess.channels == 1:
        pixels = np.array(Image.fromarray(pixels).convert("L"))[..., None]
    return torch.from_numpy(pixels).permute(2, 0, 1)


def prepare_source(source: Any, preprocess: Preprocess) -> Tensor:
    """Read and prepare an image, decoded at a reduced scale where that suffices.

    Args:
        source: a path, bytes, an open file, a PIL image, an array or a uint8 tensor.
        preprocess: as for `prepare`.

    Raises:
        DataError: it cannot be read or resized.
    """
    image = as_image_source(source, preprocess.ranges)
    return prepare(decode_reduced(image, at_least(preprocess), preprocess.ranges), preprocess)


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
    left, top, right, bottom = geometry.crop
    # Only what is cut out: of a narrow image, the whole may be larger than the memory.
    columns = _nearest(mask.width, geometry.scaled[0], left, right)
    rows = _nearest(mask.height, geometry.scaled[1], top, bottom)
    x, y = geometry.offset
    filled = np.full((preprocess.height, preprocess.width), fill, np.uint8)
    filled[y : y + len(rows), x : x + len(columns)] = np.asarray(mask)[rows[:, None], columns]
    return torch.from_numpy(filled)


def _nearest(full: int, scaled: int, first: int, last: int) -> NDArray[np.int64]:
    """Return the pixels of a side that Pillow takes for those of a part of the resized side."""
    steps = np.full(last, full / scaled)
    steps[0] /= 2
    # Added one by one, whose rounding decides between two pixels that are equally near.
    return np.cumsum(steps)[first:].astype(np.int64)


def _pad(
    pixels: NDArray[np.uint8], geometry: Geometry, preprocess: Preprocess
) -> NDArray[np.uint8]:
    """Pad to `size`, in `border` with the mean colour, else with black."""
    mean = (preprocess.mean * 3)[:3] if preprocess.crop == "border" else (0, 0, 0)
    color = [round(255 * value) for value in mean]
    padded = np.full((preprocess.height, preprocess.width, 3), color, np.uint8)
    left, top = geometry.offset
    padded[top : top + len(pixels), left : left + pixels.shape[1]] = pixels
    return padded


def normalize(batch: Tensor, preprocess: Preprocess, dtype: torch.dtype = torch.float32) -> Tensor:
    """Scale bytes to 0..1, and normalize them by mean and std.

    Args:
        batch: `[images, channels, height, width]`, uint8.
        preprocess: mean and std.
        dtype: of the result; the arithmetic is always in float32.

    Returns:
        A new tensor in the batch's memory format.
    """
    mean, std = _constants(preprocess.mean, preprocess.std, batch.device)
    return batch.to(torch.float32).div_(255).sub_(mean).div_(std).to(dtype)


def denormalize(batch: Tensor, preprocess: Preprocess) -> Tensor:
    """Invert `normalize`, for display.

    Args:
        batch: `[images, channels, height, width]`: floats; bytes are returned unchanged.
        preprocess: mean and std.

    Returns:
        uint8, clamped to its range.
    """
    if batch.dtype == torch.uint8:
        return batch
    mean, std = _constants(preprocess.mean, preprocess.std, batch.device)
    pixels = batch.to(torch.float32).mul(std).add_(mean).mul_(255).nan_to_num_(0.0)
    return pixels.round_().clamp_(0, 255).to(torch.uint8)


@dataclass(frozen=True)
class Transform:
    """Transform an image to a network's input, for a `Dataset` of the user's.

    Args:
        preprocess: size, crop, interpolation, mean and std.
    """

    preprocess: Preprocess

    def __call__(self, image: Any) -> Tensor:
        """Prepare and normalize an image.

        Args:
            image: a path, bytes, an open file, a PIL image, an array `[height, width]` or
                `[height, width, 3]`, or a uint8 tensor `[3, height, width]`. A large JPEG of the
                first three is decoded at a reduced scale, as everywhere in zoo. A float tensor is
                prepared already, and returned.

        Returns:
            `[channels, height, width]`, float32.

        Raises:
            DataError: it cannot be read.
        """
        if isinstance(image, Tensor) and image.is_floating_point():
            return check_float_tensor(image, self.preprocess)
        pixels = prepare_source(image, self.preprocess)
        return normalize(pixels[None], self.preprocess)[0]


@lru_cache(maxsize=16)
def _constants(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device
) -> tuple[Tensor, Tensor]:
    """Cache mean and std on the device: a copy per batch would synchronize with it."""
    per_channel = [torch.tensor(values).view(-1, 1, 1).to(device) for values in (mean, std)]
    return per_channel[0], per_channel[1]
