"""Read what an image file states of itself: its format, and the values that it stores."""

from __future__ import annotations

import io
from collections.abc import Collection
from pathlib import Path

from PIL import Image

from zoo.data.decode import MAX_PIXELS, open_file
from zoo.data.formats import readable_formats
from zoo.data.values import (
    WHOLE,
    Values,
    image_values,
    is_deep_color,
    kind_of,
    read_deep_color,
)


def read_format(content: bytes) -> str | None:
    """Return the format and the mode of an image file, such as `JPEG RGB`, from its header.

    Returns:
        None for bytes that are not an image file.
    """
    try:
        with Image.open(io.BytesIO(content), formats=readable_formats()) as image:
            return f"{image.format} {image.mode}"
    except Exception:  # damaged bytes raise nearly any exception
        return None


def is_jpeg(name: str) -> bool:
    """Whether the name of a file is that of a JPEG, which has 8 bits."""
    return name.lower().endswith((".jpg", ".jpeg"))


def read_values(path: Path, skip: Collection[str] = ()) -> Values | None:
    """Return the values of an image as its file stores them.

    Args:
        path: of the file.
        skip: types to ignore.

    Returns:
        None for types to ignore, and for files that cannot be read.
    """
    try:
        with open_file(path, str(path)) as file:
            header = file.read(25)
            # PNG states its depth there, and most have 8 bits.
            if header.startswith(b"\x89PNG") and header[24] <= 8 and "uint8" in skip:
                return None
            file.seek(0)
            with Image.open(file, formats=readable_formats()) as image:
                kind, deep = kind_of(image) or WHOLE.kind, is_deep_color(image)
                if kind in skip or image.width * image.height > MAX_PIXELS:
                    return None
                if deep:
                    file.seek(0)
                    return Values(kind, read_deep_color(file.read(), str(image.format))[..., :3])
                return image_values(image)
    except Exception:  # damaged bytes raise nearly any exception, and are reported when decoded
        return None
