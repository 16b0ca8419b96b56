"""Resize images: one function for training and prediction.

Pillow defines the result. torch computes it from the same kernels with vector instructions, in a
fifth of the time, and within one level of 255 of Pillow's (`tests/data/test_resize.py`), or two of
noise that bicubic enlarges; Pillow does what torch's fast path does not. Neither starts threads, as
images are read in several.
"""

from __future__ import annotations

import contextlib
import ctypes
import math

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from zoo.data.jpeg_pixels import Pixels, as_image, size_of

Box = tuple[float, float, float, float]

# What `torch.nn.functional.interpolate` calls. It takes no scale beside a size, for an image that
# ends inside its last pixel.
OPERATORS = {
    "bilinear": torch.ops.aten._upsample_bilinear2d_aa.default,
    "bicubic": torch.ops.aten._upsample_bicubic2d_aa.default,
}
# Of their kernels on either side, in pixels of what is smaller.
SUPPORT = {"bilinear": 1, "bicubic": 2}


def resize(
    image: Image.Image | Pixels,
    size: tuple[int, int],
    crop: tuple[int, int, int, int],
    interpolation: str,
    box: Box | None = None,
) -> NDArray[np.uint8]:
    """Resize an image with antialiasing, and crop the result.

    Args:
        image: of mode RGB, or the memory of one.
        size: width and height that it is resized to.
        crop: left, upper, right and lower edge of what is returned.
        interpolation: `nearest`, `bilinear`, `bicubic` or `lanczos`.
        box: left, upper, right and lower edge of the part that is resized; None for all of it.

    Returns:
        `[height, width, 3]`, contiguous.
    """
    own = size_of(image)
    if not _is_fast(own, size, interpolation, box):
        return np.array(_resize_in_pillow(as_image(image), size, crop, interpolation, box))
    pixels, owner = _pixels_of(image)
    left, top, right, bottom = crop
    extent = (box[2], box[3]) if box else own
    across, down = size[0] / extent[0], size[1] / extent[1]
    # What is right of the crop and below it is not computed.
    rows, height = _rows_to_crop(own[1], size[1], bottom, 1 / down, SUPPORT[interpolation])
    pixels = pixels[:, :, :rows]
    width = size[0] if right == own[0] or size[0] == own[0] else right
    first = (own[0], height) if _is_down_first(own, size) else (width, rows)
    for wide, high in (first, (width, height)):
        scales = (
            down if high != pixels.shape[2] else 1.0,
            across if wide != pixels.shape[3] else 1.0,
        )
        pixels = OPERATORS[interpolation](pixels, [high, wide], False, *scales)
    part = pixels[0, :, top:bottom, left:right].permute(1, 2, 0).numpy()
    del owner  # its memory was read until here
    return np.ascontiguousarray(part) if part.shape[2] == 3 else _pack(part)


def _rows_to_crop(own: int, wanted: int, end: int, scale: float, support: int) -> tuple[int, int]:
    """Return how many rows of an image are read, and how many are computed of them.

    Args:
        own: number of rows of the image.
        wanted: number of rows that it is resized to.
        end: of these, how many the crop reaches over.
        scale: rows of the image to one that is computed.
        support: of the kernel, in pixels.
    """
    if own == wanted:
        return end, end
    read = min(own, math.ceil(scale * (end - 0.5) + support * max(scale, 1.0)) + 1)
    # torch takes an axis of equal sizes as done.
    return (own, wanted) if read == end else (read, end)


def _is_down_first(size: tuple[int, int], wanted: tuple[int, int]) -> bool:
    """Whether rows are combined before columns.

    As in Pillow 13, found by comparing it with both. torch's own order is otherwise, and where a
    kernel overshoots, what is clipped between the passes depends on it.
    """
    (width, height), (wide, high) = size, wanted
    return high < height and 2 * (width - wide) < height - high


def _is_fast(
    own: tuple[int, int], size: tuple[int, int], interpolation: str, box: Box | None
) -> bool:
    """Whether torch resizes an image of its own size, fast and to the same result."""
    left, top, right, bottom = box or (0, 0, *own)
    # torch takes a side of the size wanted as done, whatever the box.
    cut = (right, bottom) != own
    done = cut and (size[0] == own[0] or size[1] == own[1])
    return interpolation in OPERATORS and (left, top) == (0, 0) and not done and is_vectorized()


def is_vectorized() -> bool:
    """Whether torch resizes bytes with vector instructions on this CPU.

    Elsewhere its threads compute, and more slowly.
    """
    return torch.backends.cpu.get_cpu_capability().startswith("AVX")


def _resize_in_pillow(
    image: Image.Image,
    size: tuple[int, int],
    crop: tuple[int, int, int, int],
    interpolation: str,
    box: Box | None,
) -> Image.Image:
    kernel = Image.Resampling[interpolation.upper()]
    if box is None or box == (0, 0, *image.size):
        # Resize in full before cropping: resizing the crop alone is faster, but rounds differently.
        return image.resize(size, kernel).crop(crop)
    left, top, right, bottom = crop
    x0, y0, x1, y1 = box
    across, down = (x1 - x0) / size[0], (y1 - y0) / size[1]
    # Rounding must not exceed the image.
    x1, y1 = min(x0 + right * across, x1), min(y0 + bottom * down, y1)
    part = (x0 + left * across, y0 + top * down, x1, y1)
    return image.resize((right - left, bottom - top), kernel, part)


class _ArrowArray(ctypes.Structure):
    """Of Arrow's C data interface, as far as it is read."""


_ArrowArray._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_ArrowArray))),
]

_get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_get_pointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
_get_pointer.restype = ctypes.c_void_p


def _pixels_of(image: Image.Image | Pixels) -> tuple[Tensor, object]:
    """Return the pixels of an image, `[1, 3 or 4, height, width]`, channels last in memory.

    Pillow stores RGB in four bytes, and shares the memory of an image of up to 4 million pixels,
    for which one block suffices; that of a larger one is copied.

    Returns:
        The pixels, and the owner of their memory, which must outlive them.
    """
    if not isinstance(image, Image.Image):
        return torch.from_numpy(image)[None].permute(0, 3, 1, 2), image
    width, height = image.size
    owner: object = None
    with contextlib.suppress(ValueError):  # raised for several blocks
        _, owner = image.__arrow_c_array__()
    memory: bytearray | ctypes.Array[ctypes.c_uint8]
    if owner is None:
        memory = bytearray(image.tobytes("raw", "RGBX"))
    else:
        memory = _shared_memory(owner, 4 * width * height)
    pixels = torch.frombuffer(memory, dtype=torch.uint8).view(1, height, width, 4)
    return pixels.permute(0, 3, 1, 2), owner


def _shared_memory(owner: object, size: int) -> ctypes.Array[ctypes.c_uint8]:
    """Return the memory of an Arrow array of lists of four bytes, in a capsule."""
    array = _ArrowArray.from_address(_get_pointer(owner, b"arrow_array"))
    values = array.children[0].contents
    assert values.length == size
    return (ctypes.c_uint8 * size).from_address(values.buffers[1])


def _pack(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the first three of four channels, contiguous.

    By Pillow, which takes a third of the time of torch and NumPy for this.
    """
    whole = np.ascontiguousarray(pixels)
    height, width = whole.shape[:2]
    packed = Image.frombuffer("RGBX", (width, height), whole, "raw", "RGBX", 0, 1)
    rgb = np.frombuffer(bytearray(packed.tobytes("raw", "RGB")), np.uint8)
    return rgb.reshape(height, width, 3)
