"""Random augmentation of training images, a function of seed, epoch and sample index.

The transforms are torchvision's. Each sample draws from its own generator state, so that neither
the number of workers nor an interruption changes the result.
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
from zoo.data.transforms import at_least, prepare, prepare_part
from zoo.options import Augmentation
from zoo.seeding import seeded
from zoo.spec import Preprocess


@dataclass(frozen=True)
class Draw:
    """The augmentation of one epoch.

    Args:
        augment: its steps; None for none beside a dataset's own.
        seed: of the training.
        epoch: counted over all phases.
    """

    augment: Augmentation | None
    seed: int
    epoch: int

    def at_least(self, preprocess: Preprocess) -> tuple[int, int] | None:
        """Return the minimum width and height to decode at; None for full resolution.

        A random crop needs full resolution: its area is unknown until it is drawn.
        """
        crops = self.augment is not None and "crop" in dict(self.augment.steps)
        return None if crops else at_least(preprocess)

    def __call__(
        self, image: Image.Image | DecodedImage, preprocess: Preprocess, index: int
    ) -> Tensor:
        """Augment and prepare an image.

        Args:
            image: of mode RGB.
            preprocess: size and interpolation; a random crop replaces its crop.
            index: of the sample in its split.

        Returns:
            `[channels, height, width]` uint8.

        Raises:
            DataError: the image is too narrow to resize.
        """
        steps = dict(self.augment.steps) if self.augment else {}
        with seeded(self.seed, self.epoch, index):
            pixels: Tensor
            if "crop" in steps:
                full = image.pixels if isinstance(image, DecodedImage) else image
                pixels = prepare_part(full, draw_part(full, steps["crop"], preprocess), preprocess)
            else:
                pixels = prepare(image, preprocess)
            for name, strength in steps.items():
                if name != "crop":
                    pixels = augmentation(name, strength, fill_of(preprocess))(pixels)
        return pixels

    def while_reading(self, index: int) -> contextlib.AbstractContextManager[None]:
        """Seed torch by seed, epoch and index while a dataset returns an item."""
        return seeded(self.seed, self.epoch, index, 1)


def draw_part(
    image: Image.Image, scale: float, preprocess: Preprocess
) -> tuple[int, int, int, int]:
    """Draw a random part of an image: its left, upper, right and lower edge.

    Args:
        image: whole.
        scale: smallest share of its area.
        preprocess: size of the network's input.
    """
    size = preprocess.height, preprocess.width
    drawn = v2.RandomResizedCrop(size, scale=(scale, 1.0)).make_params([image])
    left, top = drawn["left"], drawn["top"]
    return left, top, left + drawn["width"], top + drawn["height"]


def fill_of(preprocess: Preprocess) -> list[int]:
    """Return the mean colour, which fills pixels outside the image."""
    return [round(255 * value) for value in preprocess.mean]


def augmentation(name: str, strength: float, fill: Any) -> Callable[..., Any]:
    """Return the torchvision transform of an augmentation other than a random crop.

    Args:
        name: of the augmentation.
        strength: of it.
        fill: value outside the image, or values by type of tensor for a joint transform.

    Raises:
        ValueError: no augmentation has the name.
    """
    transform: Callable[..., Any]
    match name:
        case "flip":
            transform = v2.RandomHorizontalFlip(strength)
        case "vflip":
            transform = v2.RandomVerticalFlip(strength)
        case "rotate":
            transform = v2.RandomRotation(strength, InterpolationMode.BILINEAR, fill=fill)
        case "color":
            transform = v2.ColorJitter(brightness=strength, contrast=strength, saturation=strength)
        case "trivial":
            transform = v2.TrivialAugmentWide(fill=fill)
        case "erase":
            transform = v2.RandomErasing(strength, value=fill)
        case _:
            raise ValueError(f"no augmentation is named {name!r}")
    return transform
