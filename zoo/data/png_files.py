"""PNG files that are written for images, each overwriting only an earlier one of the same image."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, PngImagePlugin

# PNG text chunk with a hash of the path of the image.
SOURCE = "zoo-source"


def source_id(name: str) -> str | None:
    """Return a hash of the path of an image; None for an image without a file."""
    try:
        path = Path(name)
        if not path.is_file():
            return None
        return hashlib.sha256(str(path.resolve()).encode(errors="surrogateescape")).hexdigest()
    except (OSError, ValueError):
        return None


def unused_paths(
    folder: Path, name: str, endings: Sequence[str], source: str | None
) -> tuple[Path, ...]:
    """Return paths in a folder that are unused, or were written for the same image.

    Args:
        folder: of the files.
        name: of the image, which each path begins with.
        endings: of the paths.
        source: from `source_id`.
    """
    number = 1
    while True:
        unique = name if number == 1 else f"{name}-{number}"
        paths = tuple(folder / f"{unique}{ending}" for ending in endings)
        if all(not path.exists() or _has_source(path, source) for path in paths):
            return paths
        number += 1


def _has_source(path: Path, source: str | None) -> bool:
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return source is not None and image.info.get(SOURCE) == source
    except (OSError, SyntaxError):
        return False


def encode_png(image: Image.Image, source: str | None) -> bytes:
    """Return an image as a PNG file, with the hash of the path of its source."""
    info = PngImagePlugin.PngInfo()
    if source is not None:
        info.add_text(SOURCE, source)
    content = io.BytesIO()
    image.save(content, "PNG", pnginfo=info)
    return content.getvalue()
