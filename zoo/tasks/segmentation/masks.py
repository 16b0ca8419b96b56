"""Masks in PNG files: read as indices, and as the targets of a split."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from zoo.data.decode import DecodedImage, UnreadableImage, decode_reduced, read_bytes
from zoo.data.split import FileSplit
from zoo.errors import one_line

# Pillow stretches grey of few bits to 0..255, where indices are wanted as they were written.
STRETCHED = {"L;2": 85, "L;4": 17}


class NotIndices(UnreadableImage):
    """A file that can be read, and holds colours instead of indices of classes."""


@dataclass(frozen=True)
class Mask:
    """Indices of classes.

    Args:
        indices: `[height, width]`, uint8, or more bits where the file has them.
        palette: `#rrggbb` of each entry of the file's palette; empty where it has none.
    """

    indices: NDArray[np.generic]
    palette: tuple[str, ...] = ()


def read_mask(path: Path) -> Mask:
    """Read a mask: a PNG with a palette, or grey.

    Raises:
        NotIndices: it is in colour, or has transparency.
        UnreadableImage: it is missing, damaged, or no PNG.
    """
    content = read_bytes(path)
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            raw = image.tile[0][3] if image.tile else ""
            mode = image.mode
            palette = image.getpalette("RGB") if mode == "P" else None
            upright = ImageOps.exif_transpose(image)
            indices = np.asarray(upright)
    except Exception as error:  # damaged bytes raise nearly any kind
        raise UnreadableImage(str(path), f"no PNG that can be read: {one_line(error)}") from error
    if mode not in ("1", "L", "P") and not mode.startswith("I"):
        raise NotIndices(str(path), f"of mode {mode}")
    if mode == "1":
        indices = indices.astype(np.uint8)
    elif raw in STRETCHED:
        indices = indices // STRETCHED[raw]
    colors = zip(*[iter(palette or ())] * 3, strict=True)
    return Mask(indices, tuple("#{:02x}{:02x}{:02x}".format(*color) for color in colors))


@dataclass(frozen=True)
class MaskSplit(FileSplit):
    """Images in files, each with a mask.

    Args:
        targets: of each image, the path of its mask.
        renumber: by index in a mask, the index that a model has for the class; None where they are
            the same.
    """

    renumber: bytes | None = None

    def mask(self, index: int) -> Image.Image:
        """Read the mask of an image, of mode L, upright.

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
        """Decode an image, no larger than needed, with its mask in full.

        Raises:
            UnreadableImage: one of them cannot be read, or they differ in size.
        """
        image = decode_reduced(self.path(index) if content is None else content, at_least)
        mask = self.mask(index)
        if mask.size != image.size:
            raise UnreadableImage(str(self.root / self.targets[index]), "not as large as its image")
        return image, mask
