"""The transform from an image to a network's input, as data."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from zoo.errors import UsageError, did_you_mean
from zoo.records import validate

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
CROPS = ("center", "squash", "border")
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True, slots=True)
class Preprocess:
    """The transform from an image to the input that weights were trained on.

    Args:
        size: height and width of the input in pixels; one number for a square.
        resize: length in pixels of the shorter side before the crop; by default size / 0.875, the
            convention of ImageNet evaluation, and the size itself for `squash` and `border`.
        crop: `center`; `squash` (resized without keeping the aspect ratio); `border` (the longer
            side resized to fit, the rest filled).
        interpolation: `nearest`, `bilinear`, `bicubic` or `lanczos`, always antialiased.
        mean: per channel, for values in 0..1.
        std: per channel, for values in 0..1.
        ranges: type, and the values that are black and white, for each type whose range a data set
            uses in part, such as `("uint16", 0, 4095)`; other types are scaled by their own range.
    """

    size: int | tuple[int, int]
    resize: int | None = None
    crop: str = "center"
    interpolation: str = "bilinear"
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    ranges: tuple[Any, ...] = ()

    def __post_init__(self) -> None:
        validate(self)
        if self.ranges:
            object.__setattr__(self, "ranges", _ranges(self.ranges))
        size = (self.size, self.size) if isinstance(self.size, int) else self.size
        if len(size) != 2 or min(size) < 1:
            raise UsageError(f"preprocess size {self.size!r} is not one or two positive numbers")
        object.__setattr__(self, "size", size)
        for name, known in (("crop", CROPS), ("interpolation", INTERPOLATIONS)):
            value = getattr(self, name)
            if value not in known:
                hint = did_you_mean(value, known, f"one of {', '.join(known)}")
                raise UsageError(f"preprocess {name} {value!r} is unknown", hint)
        if not self.std or len(self.mean) != len(self.std) or min(self.std) <= 0:
            raise UsageError("preprocess mean and std must be of one length, and std positive")
        if not all(0 <= each <= 1 for each in self.mean):
            message = f"preprocess mean {self.mean} is not of values in 0..1"
            raise UsageError(message, "if it is of 0..255, divide it and std by 255")
        if self.resize is None:
            fraction = 0.875 if self.crop == "center" else 1.0
            object.__setattr__(self, "resize", math.floor(min(size) / fraction))

    @property
    def height(self) -> int:
        """Height of the input in pixels."""
        assert isinstance(self.size, tuple)
        return self.size[0]

    @property
    def width(self) -> int:
        """Width of the input in pixels."""
        assert isinstance(self.size, tuple)
        return self.size[1]

    @property
    def channels(self) -> int:
        """Channels of the input: 3 for RGB, 1 for grayscale."""
        return len(self.mean)


def _ranges(given: tuple[Any, ...]) -> tuple[tuple[str, float, float], ...]:
    """Return ranges of values as tuples.

    Raises:
        UsageError: they are not.
    """
    try:
        ranges = tuple((str(kind), float(low), float(high)) for kind, low, high in given)
    except (TypeError, ValueError) as error:
        message = f"preprocess ranges {given!r} are not a type, a smallest and a largest value each"
        raise UsageError(message) from error
    if any(not low < high for _, low, high in ranges):
        raise UsageError(f"preprocess ranges {given!r} are empty")
    return ranges
