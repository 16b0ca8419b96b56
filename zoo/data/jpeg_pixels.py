"""Decode JPEG files by simplejpeg, where it is installed, to the same bytes as Pillow, and faster.

Both are libjpeg-turbo; Pillow copies each line, and passes the file in parts. It reads the header
in any case, and decides what is read: whatever simplejpeg raises or warns of is decoded by Pillow.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

# `[height, width, 3]`: red, green and blue.
Pixels = NDArray[np.uint8]
# Of smaller images two scales may have the same size.
MIN_SIZE = 16


@cache
def _decoder() -> Callable[..., Pixels] | None:
    """Return simplejpeg's function; None where it is not installed, or cannot be imported."""
    try:
        decoder: Callable[..., Pixels] = import_module("simplejpeg").decode_jpeg
        return decoder
    except (ImportError, AttributeError):
        return None


def decode_pixels(image: Image.Image, file: BinaryIO) -> Pixels | None:
    """Decode a JPEG without a fault, in colour or grey, at the scale that is set.

    Args:
        image: as Pillow opened it, not loaded yet.
        file: that it was opened from.

    Returns:
        The pixels, of the image's size; None where Pillow is to decode it.
    """
    decoder = _decoder()
    # Not of a subclass, such as that of files with several images.
    if decoder is None or type(image) is not JpegImageFile or image.mode not in ("RGB", "L"):
        return None
    if min(image.size) < MIN_SIZE or not file.seekable():
        return None
    width, height = image.size
    file.seek(0)
    content = file.read()
    try:
        pixels = decoder(content, "RGB", min_height=height, min_width=width)
    except (ValueError, RuntimeError, MemoryError):
        return None
    return pixels if pixels.shape == (height, width, 3) else None


def as_image(pixels: Image.Image | Pixels) -> Image.Image:
    """Return pixels as a Pillow image of mode RGB."""
    if isinstance(pixels, Image.Image):
        return pixels
    return Image.fromarray(pixels)


def size_of(pixels: Image.Image | Pixels) -> tuple[int, int]:
    """Return the width and height of an image."""
    if isinstance(pixels, Image.Image):
        return pixels.size
    height, width = pixels.shape[:2]
    return width, height
