"""JPEG files that lack their last bytes: whether what is left is a whole image to the eye."""

from __future__ import annotations

import io
import os
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image

END = b"\xff\xd9"
# The share of the pixels that may be missing; a single block may always be.
MAX_MISSING = 0.05
BLOCK = 16
# Appended to see which pixels depend on bytes that are missing: they decode as other coefficients
# than those that libjpeg assumes.
FILLERS = (b"\x55" * 8, b"\xaa" * 8)


def lacks_end(file: BinaryIO) -> bool:
    """Return whether a seekable JPEG file has no end marker; other data may follow it."""
    file.seek(-len(END), os.SEEK_END)
    if file.read() == END:
        return False
    file.seek(0)
    content = file.read()
    return END not in content[content.rfind(b"\xff\xda") :]


def complete_jpeg(content: bytes) -> bytes | None:
    """Return a JPEG that lacks its last bytes with an end, or None if too much is missing.

    Pixels that the missing bytes would determine are grey: at most 5 % of the image, or one block
    of 16 x 16 pixels. A progressive image lacks at most the last bit of its coefficients.

    Args:
        content: of the file.
    """
    # A marker cut in two.
    content = content.rstrip(b"\xff")
    complete, refining = _read_scans(content) if content.startswith(b"\xff\xd8") else (False, False)
    if not complete:
        return None
    try:
        image, other, third = (_pixels(content + filler + END) for filler in (b"", *FILLERS))
    except Exception:  # damaged bytes raise nearly any exception
        return None
    if refining:
        return content + END
    height, width = image.shape[:2]
    missing = _undetermined((image != other).any(axis=-1) | (image != third).any(axis=-1))
    return content + END if missing <= max(MAX_MISSING * height * width, BLOCK**2) else None


def _pixels(content: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(content), formats=("JPEG",)) as image:
        return np.asarray(image.convert("RGB"))


def _undetermined(differs: NDArray[np.bool_]) -> int:
    """Return the number of pixels in the first block that differs, and in those after it."""
    rows = np.flatnonzero(differs.any(axis=1))
    if not len(rows):
        return 0
    height, width = differs.shape
    # Where colour is subsampled, a block affects one pixel of the blocks around it.
    top = int(rows[0] + 1) // BLOCK * BLOCK
    bottom = min(top + BLOCK, height)
    columns = np.flatnonzero(differs[top:bottom].any(axis=0))
    left = int(columns[0] + 1) // BLOCK * BLOCK if len(columns) else width
    missing: int = (bottom - top) * (width - left) + (height - bottom) * width
    return missing


def _read_scans(content: bytes) -> tuple[bool, bool]:
    """Return whether the scans of a JPEG have all coefficients, and whether the last refines them.

    The last scans of a progressive image change coefficients by one step of their quantization,
    which is not visible.
    """
    components, seen, refining = b"", dict[int, set[int]](), False
    position = 2
    while (position := content.find(b"\xff", position)) >= 0 and position + 4 <= len(content):
        marker = content[position + 1]
        if marker in (0x00, 0xFF) or 0xD0 <= marker <= 0xD7:  # data, padding and restarts
            position += 1
            continue
        length = int.from_bytes(content[position + 2 : position + 4], "big")
        body = content[position + 4 : position + 2 + length]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and len(body) > 5:
            components = body[6 : 6 + 3 * body[5] : 3]
        elif marker == 0xDA and body and len(body) >= 2 * body[0] + 4:
            first, last, bits = body[2 * body[0] + 1 : 2 * body[0] + 4]
            refining = bits == 0x10 and last > 0  # from one missing bit to none
            for component in body[1 : 2 * body[0] + 1 : 2]:
                seen.setdefault(component, set()).update(range(first, last + 1))
        position += 2 + length
    complete = bool(components) and all(len(seen.get(each, ())) == 64 for each in components)
    return complete, refining
