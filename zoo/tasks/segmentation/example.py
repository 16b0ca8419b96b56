"""Images of noise with striped masks, for the conformance kit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zoo.data.decode import DecodedImage
from zoo.data.images import noise
from zoo.data.split import ImageData, Split
from zoo.spec import Preprocess
from zoo.tasks.segmentation.schema import SegmentationSchema


@dataclass(frozen=True, eq=False)
class StripedSplit(Split):
    """Images in memory, each with vertical stripes of every class as its mask.

    Args:
        name: of the split.
        images: `[images, channels, height, width]` uint8.
        classes: number of classes.
    """

    name: str
    images: Tensor
    classes: int

    @property
    def targets(self) -> range:  # type: ignore[override]
        """One placeholder per image; see `mask`."""
        return range(len(self.images))

    def where(self, index: int) -> str:
        """Return the position of an image."""
        return f"image {index}"

    def image(self, index: int) -> Image.Image:
        """Return an image as 8-bit RGB."""
        pixels = self.images[index].expand(3, -1, -1)
        return Image.fromarray(pixels.permute(1, 2, 0).numpy())

    def sample(
        self, index: int, at_least: tuple[int, int] | None = None, content: bytes | None = None
    ) -> tuple[Image.Image | DecodedImage | Any, Any]:
        """Return an image and its mask."""
        return self.image(index), self.mask(index)

    def mask(self, index: int) -> Image.Image:
        """Return the mask of an image."""
        height, width = self.images.shape[2:]
        stripes = (torch.arange(width) * 2 * self.classes // width + index) % self.classes
        mask = np.ascontiguousarray(stripes.to(torch.uint8).expand(height, width).numpy())
        return Image.fromarray(mask)


def example_data(preprocess: Preprocess, count: int, seed: int) -> ImageData:
    """Return images of noise with striped masks. See `BaseTask.example_data`."""
    images, classes = noise(count, preprocess, seed), 3
    names = tuple(f"class {index}" for index in range(classes))
    return ImageData(
        name="stripes",
        schema=SegmentationSchema(names),
        splits={
            "train": StripedSplit("train", images, classes),
            "val": StripedSplit("val", images[:2], classes),
        },
        fingerprint="",
        notices=(),
        reason="generated",
    )
