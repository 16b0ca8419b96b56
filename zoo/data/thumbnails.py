"""Small copies of images, for the report of a training."""

from __future__ import annotations

import io

from PIL import Image
from torch import Tensor

# Longer side of an image in the report, and the quality of its JPEG file: about 5 kB each.
THUMBNAIL, QUALITY = 168, 80


def visible(pixels: Tensor) -> Tensor:
    """Return pixels `[channels, height, width]` uint8 as RGB, one channel as grey."""
    return (pixels[:3] if len(pixels) >= 3 else pixels[:1].expand(3, -1, -1)).cpu()


def encode(image: Image.Image, size: int = THUMBNAIL) -> bytes:
    """Return an image, no larger than `size` pixels, as a JPEG file."""
    small = image.convert("RGB")
    small.thumbnail((size, size), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "JPEG", quality=QUALITY, optimize=True)
    return file.getvalue()
