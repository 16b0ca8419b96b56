"""Images in memory: which arrays and tensors are images, wherever images are given."""

from __future__ import annotations

import os
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from zoo.data.decode import UnreadableImage
from zoo.data.values import Ranges, from_array
from zoo.errors import DataError
from zoo.spec import Preprocess

ARRAYS = "an array [height, width] or [height, width, 3] of uint8, or a tensor [3, height, width]"


def as_image_source(image: Any, ranges: Ranges = ()) -> Any:
    """Return an image as `decode` reads it, an array or a uint8 tensor as a PIL image.

    Args:
        image: an array `[height, width]`, or `[height, width, channels]` of 1, 3 or 4 channels, of
            uint8 or another type that `from_array` reads; a tensor of integers `[height, width]` or
            `[channels, height, width]`; or another source of an image.
        ranges: of the values, as for `from_array`.

    Raises:
        DataError: an array or tensor of another shape or type, or no source of an image.
    """
    array = image
    if isinstance(image, Tensor) and not image.is_floating_point():
        array = to_array(image)
    if not isinstance(array, np.ndarray):
        if isinstance(image, str) and "://" in image and not os.path.exists(image):  # noqa: PTH110
            raise UnreadableImage(image, "it is an address, not a file; download it first")
        if isinstance(image, (bytearray, memoryview)):
            return bytes(image)
        if isinstance(image, PathLike):
            return Path(image)
        if not isinstance(image, (str, bytes, Image.Image)) and not hasattr(image, "read"):
            raise DataError(f"a {type(image).__name__} is no image")
        return image
    try:
        if array.ndim not in (2, 3) or 0 in array.shape:
            raise TypeError("not two-dimensional")
        return from_array(array, ranges)
    except (TypeError, ValueError) as error:
        kind = "a tensor" if isinstance(image, Tensor) else "an array"
        dtype = str(image.dtype).removeprefix("torch.")
        message = f"{kind} {list(image.shape)} of {dtype} is not an image"
        raise DataError(message, f"give {ARRAYS}") from error


def to_array(image: Tensor) -> NDArray[Any]:
    """Return a tensor of integers, `[channels, height, width]`, with its channels last."""
    pixels = image.detach().cpu()
    array: NDArray[Any] = (pixels.movedim(0, -1) if pixels.ndim == 3 else pixels).numpy()
    return array


def check_float_tensor(image: Tensor, preprocess: Preprocess) -> Tensor:
    """Check that a float tensor is one prepared image, and return it as float32 on the CPU.

    Args:
        image: `[channels, height, width]`, as `zoo.transform` returns it.
        preprocess: of the network.

    Raises:
        DataError: it has another number of dimensions or channels.
    """
    if image.ndim != 3 or image.shape[0] != preprocess.channels or 0 in image.shape:
        expected = f"[{preprocess.channels}, height, width]"
        message = f"a tensor {list(image.shape)} of floats is no prepared image {expected}"
        raise DataError(message, "zoo.transform prepares images")
    return image.detach().float().cpu()
