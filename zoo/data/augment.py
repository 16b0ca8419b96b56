"""Augmentation: training images changed at random, as a function of seed, epoch and index.

The changes themselves are torchvision's. Each image's draws come from a generator state of its
own, so that neither the number of workers nor an interruption can change them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode, v2

from zoo.data.decode import DecodedImage
from zoo.data.transforms import at_least, prepare
from zoo.errors import UsageError, did_you_mean
from zoo.seeding import seeded
from zoo.spec import Preprocess

# By name: the strength that is taken where none is given, and the largest that means something.
# None: it has no strength. `crop` and `flip` are the defaults of Inception's training, arXiv
# 1409.4842; `trivial` is TrivialAugment Wide, arXiv 2103.10158; `erase` arXiv 1708.04896.
STRENGTHS: dict[str, tuple[float, float] | None] = {
    "crop": (0.08, 1.0),
    "flip": (0.5, 1.0),
    "vflip": (0.5, 1.0),
    "rotate": (15.0, 180.0),
    "color": (0.2, 1.0),
    "trivial": None,
    "erase": (0.25, 1.0),
}
FORMS = "write names like crop,flip or crop:0.5,flip,rotate:10"


@dataclass(frozen=True)
class Augment:
    """Random changes of training images, in this order.

    Args:
        steps: name and strength of each.
    """

    steps: tuple[tuple[str, float], ...]

    def __str__(self) -> str:
        return ",".join(
            name if STRENGTHS[name] is None else f"{name}:{strength:g}"
            for name, strength in self.steps
        )


def parse_augment(text: str | None) -> Augment | None:
    """Read what to do to training images, as the command line writes it.

    Args:
        text: names separated by commas, each with a strength after a colon where it has one:
            `crop` (a random part of the image, from this share of its area up), `flip` and
            `vflip` (mirrored, with this probability), `rotate` (by up to this many degrees),
            `color` (brightness, contrast and saturation changed by up to this share), `trivial`
            (TrivialAugment) and `erase` (a part made blank, with this probability); `none` or
            None for nothing.

    Raises:
        UsageError: a name or strength means nothing.
    """
    if text is None or text == "none":
        return None
    steps: list[tuple[str, float]] = []
    for part in text.split(","):
        name, colon, value = part.strip().partition(":")
        if name not in STRENGTHS:
            raise UsageError(
                f"no augmentation is named {name!r}",
                did_you_mean(name, [*STRENGTHS], f"{FORMS}; there are {', '.join(STRENGTHS)}"),
            )
        if name in dict(steps):
            raise UsageError(f"--augment names {name} twice", FORMS)
        steps.append((name, _strength(name, value if colon else None)))
    return Augment(tuple(steps))


def _strength(name: str, text: str | None) -> float:
    known = STRENGTHS[name]
    if known is None:
        if text is not None:
            raise UsageError(f"--augment {name} has no strength", FORMS)
        return 0.0
    usual, most = known
    if text is None:
        return usual
    try:
        value = float(text)
        if not 0 < value <= most:
            raise ValueError
    except ValueError:
        hint = f"give a number above 0, up to {most:g}"
        raise UsageError(f"--augment {name}:{text}", hint) from None
    return value


@dataclass(frozen=True)
class Draw:
    """The augmentation of one epoch.

    Args:
        augment: what is done; None for nothing beside what a dataset does by itself.
        seed: of the training.
        epoch: counted through all phases.
    """

    augment: Augment | None
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
                    pixels = _change(name, strength, preprocess)(pixels)
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


def _change(name: str, strength: float, preprocess: Preprocess) -> Callable[[Tensor], Tensor]:
    fill = [round(255 * value) for value in preprocess.mean]
    made: Callable[[Tensor], Tensor]
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
