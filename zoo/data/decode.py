"""Decode images to 8-bit RGB: one decoder for training and prediction.

Pillow reads the file; orientation, alpha, bit depth and which files are refused are decided here.
Colour profiles are ignored, as they were when published weights were trained.

An image that will be made much smaller need not be decoded in full: a large JPEG can be decoded at
a half, a quarter or an eighth of its size at little cost, see `decode_reduced`.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from zoo.data.formats import may_be_turned, missing_plugin, readable_formats, recognize_format
from zoo.data.jpeg import complete_jpeg, lacks_end
from zoo.data.jpeg_pixels import Pixels, as_image, decode_pixels, size_of
from zoo.data.library_messages import suppress_library_messages
from zoo.data.values import (
    Ranges,
    find_range,
    is_deep_color,
    kind_of,
    read_deep_color,
    scale,
    scale_color,
    stretch,
)
from zoo.errors import DataError, EnvironmentProblem

Size = tuple[int, int]

# Pillow's own default limit; half a gigabyte as RGB.
MAX_PIXELS = 178_956_970

# Assumed maxima of values without a declared range; the smallest that fits is taken.
RANGES = (1, 255, 65535)

TRUNCATED = "truncated"

_TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

# Whether an orientation's left and top edge are the file's right and bottom edge.
_REVERSED = {2: (1, 0), 3: (1, 1), 4: (0, 1), 6: (1, 0), 7: (1, 1), 8: (0, 1)}
_SWAPPED = (5, 6, 7, 8)

suppress_library_messages()


class UnreadableImage(DataError):
    """An image that cannot be read.

    Args:
        source: the file, or another origin of the image.
        reason: why, in a few words.
    """

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(f"cannot read {source}: {reason}")
        self.source = source
        self.reason = reason


@dataclass(frozen=True)
class DecodedImage:
    """A decoded image, possibly at a reduced scale.

    Args:
        decoded: an image of mode RGB, or the memory of one.
        size: width and height at full resolution.
        box: left, upper, right and lower edge of the image within `pixels`. Where a side is not a
            multiple of the scale, the image ends inside the last pixel.
        incomplete: whether the file lacks its last bytes, of an image that is whole to the eye.
    """

    decoded: Image.Image | Pixels
    size: tuple[int, int]
    box: tuple[float, float, float, float]
    incomplete: bool = False

    @cached_property
    def pixels(self) -> Image.Image:
        """The image, of mode RGB."""
        return as_image(self.decoded)


def decode(source: str | Path | bytes | BinaryIO | Image.Image, ranges: Ranges = ()) -> Image.Image:
    """Read an image as 8-bit RGB.

    Orientation from EXIF or XMP is applied, alpha is composited over white, and the first frame of
    an animation or the first of several pages is taken. Values are scaled by the range of their
    type, or the given one. 32-bit integers and floats declare no range: if none is given, it is the
    smallest of 0..1, 0..255 and 0..65535 that contains all values, else the image's minimum to
    maximum; non-finite values become black.

    Args:
        source: a file's path, its bytes, an open binary file, or a Pillow image, which is not
            modified.
        ranges: of a data set, by type, as `measure_ranges` returns them.

    Returns:
        A new image of mode RGB.

    Raises:
        UnreadableImage: the file is missing, empty, truncated, damaged, larger than `MAX_PIXELS`,
            not an image, or not a regular file. A JPEG that lacks only its last bytes is read.
    """
    return decode_reduced(source, None, ranges).pixels


def decode_reduced(
    source: str | Path | bytes | BinaryIO | Image.Image,
    at_least: tuple[int, int] | None,
    ranges: Ranges = (),
) -> DecodedImage:
    """Read an image as `decode` does, a JPEG at a reduced scale where that suffices.

    Args:
        source: as for `decode`. A Pillow image is read at full resolution.
        at_least: minimum width and height, after orientation. A JPEG is read at the smallest of
            its scales, 1/1 to 1/8, that satisfies this; other formats at full resolution. None
            for full resolution.
        ranges: as for `decode`.

    Raises:
        UnreadableImage: as for `decode`; `MAX_PIXELS` applies to the full resolution.
    """
    name = _name(source)
    if isinstance(source, Image.Image):
        return _convert(source, name, None, ranges)
    if isinstance(source, (str, Path)):
        path = source if isinstance(source, Path) else Path(source)
        with open_file(path, name) as file:
            return _decode_file(file, name, at_least, ranges)
    file = io.BytesIO(source) if isinstance(source, bytes) else source
    return _decode_file(file, name, at_least, ranges)


def read_size(path: Path) -> tuple[int, int]:
    """Return the width and height that `decode` gives an image, from its header where possible.

    Raises:
        UnreadableImage: as `decode` does, as far as it is read.
    """
    name = str(path)
    with open_file(path, name) as file:
        try:
            with Image.open(file, formats=readable_formats()) as image:
                # Pillow would decode a whole PNG to look for metadata behind its pixels.
                if image.format == "PNG" and not may_be_turned(file):
                    return image.size
                # The others may be turned by their format itself once they are loaded.
                if image.format in ("JPEG", "WEBP", "BMP", "PPM", "GIF"):
                    swapped = _orientation(image) in _SWAPPED
                    return image.size[::-1] if swapped else image.size
        except Exception as error:
            _raise_unreadable(name, error)
    return decode(path).size


def read_bytes(path: Path) -> bytes:
    """Read the bytes of an image file.

    Raises:
        UnreadableImage: it is missing, not a regular file, or cannot be read.
    """
    with open_file(path, str(path)) as file:
        try:
            return file.read()
        except (OSError, MemoryError) as error:
            _raise_unreadable(str(path), error)


def _name(source: str | Path | bytes | BinaryIO | Image.Image) -> str:
    if isinstance(source, (str, Path)):
        return str(source)
    name = getattr(source, "filename", None) or getattr(source, "name", None)
    return name if isinstance(name, str) else "the image"


def open_file(path: Path, name: str) -> BinaryIO:
    """Open a regular file.

    Raises:
        UnreadableImage: it is missing, another kind of file, or cannot be opened; by this name.
    """
    try:
        status = path.stat()
        # Opening a pipe would wait for a writer, and a device may never end.
        if stat.S_ISDIR(status.st_mode):
            raise UnreadableImage(name, "it is a folder")
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableImage(name, "it is not a regular file")
        return path.open("rb")
    except FileNotFoundError as error:
        raise UnreadableImage(name, "it does not exist") from error
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
            # No fault of the image, which would be skipped where bad ones are.
            message = f"cannot open {name}: {error.strerror}"
            raise EnvironmentProblem(message, "allow more open files (ulimit -n)") from error
        raise UnreadableImage(name, _shorten(error)) from error


def _decode_file(
    file: BinaryIO, name: str, at_least: tuple[int, int] | None, ranges: Ranges
) -> DecodedImage:
    try:
        with Image.open(file, formats=readable_formats()) as image:
            decoded = _convert(image, name, at_least, ranges, file)
            # Pillow decodes some of those that lack their end without an error.
            cut = image.format == "JPEG" and file.seekable() and lacks_end(file)
            return replace(decoded, incomplete=True) if cut else decoded
    except UnreadableImage as error:
        if error.reason != TRUNCATED or (whole := _complete(file)) is None:
            raise
        return replace(_decode_file(whole, name, at_least, ranges), incomplete=True)
    except UnidentifiedImageError as error:
        reason = _why_unidentified(file, name)
        raise UnreadableImage(name, reason) from error
    except Exception as error:
        _raise_unreadable(name, error)


def _why_unidentified(file: BinaryIO, name: str) -> str:
    """Return why no format recognizes a file."""
    start = b""
    if file.seekable():
        file.seek(0)
        start = file.read(16)
        if not start:
            return "the file is empty"
    suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122
    plugin = missing_plugin(suffix, start)
    if plugin is None:
        found = recognize_format(start)
        return f"damaged (no valid {found} header)" if found else "not an image that zoo reads"
    read = suffix if suffix in plugin.suffixes else f"{plugin.suffixes[0]} content"
    return f"to read {read}, `pip install {plugin.package}`"


def _complete(file: BinaryIO) -> BinaryIO | None:
    """Return a JPEG that lacks its last bytes with an end; None for any other file."""
    if not file.seekable():
        return None
    file.seek(0)
    content = complete_jpeg(file.read())
    return None if content is None else io.BytesIO(content)


def _raise_unreadable(name: str, error: Exception) -> NoReturn:
    """Raise any exception of Pillow's as `UnreadableImage`; damaged bytes raise nearly any type."""
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        reason = f"more than {MAX_PIXELS:,} pixels"
    elif isinstance(error, MemoryError):
        reason = "not enough memory to decode it"
    elif isinstance(error, EOFError) or "truncated" in str(error).lower():
        reason = TRUNCATED
    elif isinstance(error, OSError) and error.errno is not None:
        reason = _shorten(error)
    else:
        reason = f"damaged ({_shorten(error)})"
    raise UnreadableImage(name, reason) from error


def _shorten(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) else None
    line = " ".join((text or str(error) or type(error).__name__).split())
    return line if len(line) <= 80 else line[:77] + "..."


def _convert(
    image: Image.Image,
    name: str,
    at_least: tuple[int, int] | None,
    ranges: Ranges,
    file: BinaryIO | None = None,
) -> DecodedImage:
    """Convert an image to RGB; `file` is what it was opened from, None for one of the caller's."""
    size = image.size
    if size[0] * size[1] > MAX_PIXELS:
        raise UnreadableImage(name, f"{size[0]} x {size[1]} are more than {MAX_PIXELS:,}")
    try:
        if file is None:
            image.load()  # before, its mode may be that of the file, of more bits
        extent = _reduce(image, at_least) if at_least else size
        kind, deep = kind_of(image), is_deep_color(image)
        value_range = find_range(ranges, kind)
        if file is not None and value_range is None:
            pixels = decode_pixels(image, file)
            if pixels is not None:
                return _upright(pixels, _orientation(image), size, extent)
        image.load()
        # After loading: some formats apply the orientation then, and drop the tag.
        orientation = _orientation(image)
        scaled = image
        if deep and file is not None and value_range is not None:
            file.seek(0)
            scaled = scale_color(read_deep_color(file.read(), str(image.format)), *value_range)
        elif kind == "uint8" and value_range is not None:
            scaled = stretch(image, *value_range)
        upright = _to_rgb(scaled, value_range)
    except Exception as error:
        _raise_unreadable(name, error)
    if file is None and upright is image and orientation not in _TRANSPOSE:
        upright = image.copy()
    # Pillow copies metadata; decoding twice must not apply the orientation twice.
    upright.info = {}
    return _upright(upright, orientation, size, extent)


def _upright(
    decoded: Image.Image | Pixels,
    orientation: Any,
    size: tuple[int, int],
    extent: tuple[float, float],
) -> DecodedImage:
    """Apply an orientation to an image of this full size, and this size at the scale it has."""
    if orientation in _TRANSPOSE:
        decoded = as_image(decoded).transpose(_TRANSPOSE[orientation])
    width, height = size_of(decoded)
    if extent == size:
        # Not `size`: it changes on loading in some formats.
        return DecodedImage(decoded, (width, height), (0, 0, width, height))
    if orientation in _SWAPPED:
        size, extent = (size[1], size[0]), (extent[1], extent[0])
    right, down = _REVERSED.get(orientation, (0, 0))
    left = width - extent[0] if right else 0.0
    upper = height - extent[1] if down else 0.0
    return DecodedImage(decoded, size, (left, upper, left + extent[0], upper + extent[1]))


def _reduce(image: Image.Image, at_least: tuple[int, int]) -> tuple[float, float]:
    """Set the scale that a JPEG is decoded at; return its width and height at that scale."""
    if not isinstance(image, JpegImageFile) or min(image.size) < 2 * min(at_least):
        return image.size
    if _orientation(image) in _SWAPPED:
        at_least = at_least[1], at_least[0]
    drafted = image.draft(None, at_least)
    return (drafted[1][2], drafted[1][3]) if drafted else image.size


def _orientation(image: Image.Image) -> Any:
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    except Exception:
        # Corrupt metadata does not affect the pixels, and Pillow raises nearly any type here.
        return None


def _to_rgb(image: Image.Image, value_range: tuple[float, float] | None) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return _scale(image, value_range).convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        alpha = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(alpha, mask=alpha.getchannel("A"))
        return white
    return image if image.mode == "RGB" else image.convert("RGB")


def _scale(image: Image.Image, value_range: tuple[float, float] | None) -> Image.Image:
    """Scale grey of 16 or 32 bits to 8 bits."""
    values = np.asarray(image, dtype=np.float64)
    if value_range is not None:
        low, high = value_range
    elif kind_of(image) == "uint16":
        low, high = 0.0, 65535.0
    else:
        finite = values[np.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        fitting = [limit for limit in RANGES if low >= 0 and high <= limit]
        low, high = (0.0, float(fitting[0])) if fitting else (low, high)
        values[~np.isfinite(values)] = low
    grey = scale(values, low, high)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey)
