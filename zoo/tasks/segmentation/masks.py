"""Masks in PNG files: reading, and splits with masks as targets."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from zoo.data.decode import DecodedImage, UnreadableImage, decode_reduced, read_bytes
from zoo.data.formats import recognize_format
from zoo.data.split import FileSplit
from zoo.errors import one_line

# Factors by which Pillow scales grey of 2 and 4 bits to 0..255.
STRETCHED = {"L;2": 85, "L;4": 17}


class ColorMask(UnreadableImage):
    """A mask contains colours or transparency instead of class indices."""


@dataclass(frozen=True)
class Mask:
    """A mask of class indices.

    Args:
        indices: `[height, width]`, uint8, or wider for a file of more bits.
        palette: `#rrggbb` of each entry of the palette; empty without one.
    """

    indices: NDArray[np.generic]
    palette: tuple[str, ...] = ()


def read_mask(path: Path) -> Mask:
    """Read a mask: a grey PNG, or one with a palette.

    Raises:
        ColorMask: it is in colour, or has transparency.
        UnreadableImage: it is missing, damaged, or not a PNG.
    """
    content = read_bytes(path)
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            raw = image.tile[0][3] if image.tile else ""
            mode = image.mode
            palette = image.getpalette("RGB") if mode == "P" else None
            upright = ImageOps.exif_transpose(image)
            indices = np.asarray(upright)
    except UnidentifiedImageError as error:
        found = recognize_format(content[:16])
        reason = "damaged (no valid PNG header)"
        if found != "PNG":
            reason = f"it is {found}, not PNG" if found else "not a PNG"
        raise UnreadableImage(str(path), reason) from error
    except Exception as error:  # damaged bytes raise nearly any exception
        raise UnreadableImage(str(path), f"not a readable PNG: {one_line(error)}") from error
    if mode not in ("1", "L", "P") and not mode.startswith("I"):
        raise ColorMask(str(path), f"of mode {mode}")
    if mode == "1":
        indices = indices.astype(np.uint8)
    elif raw in STRETCHED:
        indices = indices // STRETCHED[raw]
    colors = zip(*[iter(palette or ())] * 3, strict=True)
    return Mask(indices, tuple("#{:02x}{:02x}{:02x}".format(*color) for color in colors))


def pixel_counts(masks: Iterable[Image.Image], classes: int) -> list[int]:
    """Return the number of pixels of each class in masks of class indices."""
    counts = np.zeros(classes, dtype=np.int64)
    for mask in masks:
        counts += np.bincount(np.asarray(mask).ravel(), minlength=256)[:classes]
    return [int(count) for count in counts]


@dataclass(frozen=True)
class MaskSplit(FileSplit):
    """Images in files, each with a mask.

    Args:
        targets: of each image, the path of its mask.
        renumber: lookup table from indices of masks to those of a model; None for the identity.
    """

    renumber: bytes | None = None

    def files(self, index: int) -> tuple[Path, ...]:
        """Return the files of an image and its mask."""
        return self.path(index), self.root / self.targets[index]

    def mask(self, index: int) -> Image.Image:
        """Read the mask of an image, mode L, upright.

        Raises:
            UnreadableImage: it cannot be read.
        """
        indices = read_mask(self.root / self.targets[index]).indices.astype(np.uint8)
        if self.renumber is not None:
            indices = np.frombuffer(self.renumber, dtype=np.uint8)[indices]
        return Image.fromarray(indices)

    def sample(
        self, index: int, at_least: tuple[int, int] | None = None, content: bytes | None = None
    ) -> tuple[Image.Image | DecodedImage, Image.Image]:
        """Decode an image, no larger than needed, and its mask at full size.

        Raises:
            UnreadableImage: either cannot be read, or their sizes differ.
        """
        source = self.path(index) if content is None else content
        image = decode_reduced(source, at_least, self.ranges)
        mask = self.mask(index)
        if mask.size != image.size:
            raise UnreadableImage(str(self.root / self.targets[index]), "not as large as its image")
        return image, mask
