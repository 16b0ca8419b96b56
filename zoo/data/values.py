"""The values of an image as its file stores them, and their scaling to 8 bits."""

from __future__ import annotations

import io
import re
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

# Type, and the values that become black and white, of types whose range is not that of the type.
Ranges = tuple[tuple[str, float, float], ...]

# The largest value of each type that has one; integers of 32 bits are never used in full.
FULL = {"uint8": 255, "uint16": 65535}

# Lossy formats have 8 bits, and use them. None is an image of the user's.
LOSSLESS = ("PNG", "TIFF", "BMP", "DIB", "PPM", None)


@dataclass(frozen=True)
class Values:
    """The values of an image.

    Args:
        kind: `uint8`, `uint16`, `int32` or `float32`.
        array: `[height, width]` or `[height, width, channels]`.
    """

    kind: str
    array: NDArray[Any]


# Of an image whose format uses 8 bits in full, such as a JPEG: beside one, a few dark images do not
# determine their range.
WHOLE = Values("uint8", np.array([0, FULL["uint8"]], dtype=np.uint8))


def kind_of(image: Image.Image) -> str | None:
    """Return the type of the values of an opened image; None for palettes and lossy formats."""
    if image.mode.startswith("I;16") or is_deep_color(image):
        return "uint16"
    if image.mode == "I":
        # Pillow opens 16-bit files of these formats in mode I, at least in earlier versions.
        return "uint16" if image.format in ("PNG", "PPM") else "int32"
    if image.mode == "F":
        return "float32"
    return "uint8" if image.mode in ("L", "RGB") and image.format in LOSSLESS else None


def is_deep_color(image: Image.Image) -> bool:
    """Whether an image that is not loaded yet is a PNG or TIFF with 16 bits for each colour."""
    modes = [_raw_mode(tile) for tile in getattr(image, "tile", ())]
    return bool(modes) and all(re.fullmatch(r"RGBA?;16[BLN]", mode) for mode in modes)


def read_deep_color(content: bytes, kind: str) -> NDArray[np.uint16]:
    """Decode colour of 16 bits, whose upper 8 alone Pillow returns.

    It is decoded a second time with the order of the bytes exchanged, for the lower 8.

    Args:
        content: of the file.
        kind: its format, by Pillow's name.

    Returns:
        `[height, width, channels]`: RGB, or RGB and alpha.
    """
    halves = []
    for exchanged in (False, True):
        with Image.open(io.BytesIO(content), formats=(kind,)) as image:
            assert isinstance(image, ImageFile.ImageFile)
            if exchanged:
                image.tile = [_exchange_bytes(tile) for tile in image.tile]
            halves.append(np.asarray(image).astype(np.uint16))
    return (halves[0] << 8 | halves[1]).astype(np.uint16)


def _raw_mode(tile: Any) -> str:
    arguments = tile[3]
    raw = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return raw if isinstance(raw, str) else ""


def _exchange_bytes(tile: Any) -> Any:
    mode = _raw_mode(tile)
    native = "L" if sys.byteorder == "little" else "B"
    order = native if mode.endswith("N") else mode[-1]
    raw = f"{mode[:-1]}{'B' if order == 'L' else 'L'}"
    arguments = tile[3]
    return tile._replace(args=raw if isinstance(arguments, str) else (raw, *arguments[1:]))


def find_range(ranges: Ranges, kind: str | None) -> tuple[float, float] | None:
    """Return the range of a type; None where it is that of the type."""
    return next(((low, high) for name, low, high in ranges if name == kind), None)


def scale(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Scale values to 8 bits, those outside of the range to its ends; NaN becomes black."""
    span = high - low if high > low else 1.0
    clipped = np.clip(np.nan_to_num(values.astype(np.float64), nan=low), low, high)
    return np.rint((clipped - low) * 255.0 / span).astype(np.uint8)


def scale_color(values: NDArray[np.uint16], low: float, high: float) -> Image.Image:
    """Return a colour image of 16 bits scaled to 8, alpha by the range of its type."""
    channels = values.shape[2]
    scaled = scale(values, low, high)
    if channels == 4:
        scaled[..., -1] = scale(values[..., -1], 0, FULL["uint16"])
    return Image.fromarray(scaled)


def stretch(image: Image.Image, low: float, high: float) -> Image.Image:
    """Scale an image of 8 bits from a range that is a part of theirs."""
    table = scale(np.arange(256), low, high).tolist()
    return image.point(table * len(image.getbands()))


def from_array(array: NDArray[Any], ranges: Ranges = ()) -> Image.Image:
    """Return an array as an image; colour of 16 bits is scaled to 8.

    Raises:
        TypeError, ValueError: it is not an image.
    """
    if _is_deep_array(array):
        return scale_color(array, *(find_range(ranges, "uint16") or (0, FULL["uint16"])))
    return Image.fromarray(array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array)


def _is_deep_array(array: NDArray[Any]) -> bool:
    """Whether an array is an image with 16 bits for each colour."""
    return array.dtype == np.uint16 and array.ndim == 3 and array.shape[-1] in (3, 4)


def array_values(array: NDArray[Any]) -> Values | None:
    """Return the values of the image that `from_array` returns, of an array of any type.

    Returns:
        None for an array that is not an image.
    """
    if _is_deep_array(array):
        return Values("uint16", array[..., :3])
    try:
        return image_values(from_array(array))
    except (TypeError, ValueError):
        return None


def image_values(image: Image.Image) -> Values:
    """Return the values of a loaded image."""
    kind = kind_of(image)
    return WHOLE if kind is None else Values(kind, np.asarray(image))
