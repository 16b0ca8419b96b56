"""Augmentation: training images changed at random, as a function of seed, epoch and index.

The changes themselves are torchvision's. Each image's draws come from a generator state of its
own, so that neither the number of workers nor an interruption can change them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from zoo.data.decode import DecodedImage
from zoo.data.transforms import at_least, prepare
from zoo.options import Augmentation
from zoo.seeding import seeded
from zoo.spec import Preprocess


@dataclass(frozen=True)
class Draw:
    """The augmentation of one epoch.

    Args:
        augment: what is done; None for nothing beside what a dataset does by itself.
        seed: of the training.
        epoch: counted through all phases.
    """

    augment: Augmentation | None
    seed: int
    epoch: int

    def at_least(self, preprocess: Preprocess) -> tuple[int, int] | None:
        """Return the width and height that decoding must leave; None for every pixel.

        Of a random crop nobody knows before it is drawn how few pixels it takes.
        """
        crops = self.augment is not None and "crop" in dict(self.augment.steps)
        return None if crops else at_least(preprocess)

    def __call__(
        self, image: Image.Image | DecodedImage, preprocess: Preprocess, index: int
    ) -> Tensor:
        """Change and prepare an image.

        Args:
            image: of mode RGB.
            preprocess: size and interpolation; a random crop replaces its crop.
            index: of the image in its split.

        Returns:
            `[channels, height, width]` uint8.

        Raises:
            DataError: the image is too narrow to resize.
        """
        steps = dict(self.augment.steps) if self.augment else {}
        with seeded(self.seed, self.epoch, index):
            pixels: Tensor
            if "crop" in steps:
                image = image.pixels if isinstance(image, DecodedImage) else image
                pixels = prepare(_crop(image, preprocess, steps["crop"]), _as_it_is(preprocess))
            else:
                pixels = prepare(image, preprocess)
            for name, strength in steps.items():
                if name != "crop":
                    pixels = change(name, strength, fill_of(preprocess))(pixels)
        return pixels

    def while_reading(self, index: int) -> contextlib.AbstractContextManager[None]:
        """Let torch draw what follows from seed, epoch and index while a dataset makes an item."""
        return seeded(self.seed, self.epoch, index, 1)


def _crop(image: Image.Image, preprocess: Preprocess, share: float) -> Image.Image:
    cut: Image.Image = v2.RandomResizedCrop(
        (preprocess.height, preprocess.width),
        scale=(share, 1.0),
        interpolation=InterpolationMode(preprocess.interpolation),
        antialias=True,
    )(image)
    return cut


def _as_it_is(preprocess: Preprocess) -> Preprocess:
    """Return a preprocess that leaves an image of its own size as it is."""
    size = (preprocess.height, preprocess.width)
    return Preprocess(size, min(size), mean=preprocess.mean, std=preprocess.std)


def fill_of(preprocess: Preprocess) -> list[int]:
    """Return the mean colour, for what an augmentation leaves without pixels."""
    return [round(255 * value) for value in preprocess.mean]


def change(name: str, strength: float, fill: Any) -> Callable[..., Any]:
    """Return the torchvision transform of an augmentation, a random crop apart.

    Args:
        name: of the augmentation.
        strength: of it.
        fill: for pixels that come from nowhere; by type of tensor for a joint transform.
    """
    made: Callable[..., Any]
    match name:
        case "flip":
            made = v2.RandomHorizontalFlip(strength)
        case "vflip":
            made = v2.RandomVerticalFlip(strength)
        case "rotate":
            made = v2.RandomRotation(strength, InterpolationMode.BILINEAR, fill=fill)
        case "color":
            made = v2.ColorJitter(brightness=strength, contrast=strength, saturation=strength)
        case "trivial":
            made = v2.TrivialAugmentWide(fill=fill)
        case _:
            made = v2.RandomErasing(strength, value=fill)
    return made
