"""The schema of masks: class names and colours."""

from __future__ import annotations

import re
from dataclasses import dataclass

from zoo.data.schema import Schema
from zoo.errors import counted

IGNORE_INDEX = 255
MAX_CLASSES = 255


def voc_color(index: int) -> str:
    """Return the colour of an index in the palette of PASCAL VOC, as `#rrggbb`.

    Bits 0, 3 and 6 of the index are the highest of red, 1, 4 and 7 of green, 2 and 5 of blue, as in
    VOClabelcolormap of the VOC development kit.
    """
    channels = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            channels[channel] |= (index >> (3 * bit + channel) & 1) << (7 - bit)
    return "#{:02x}{:02x}{:02x}".format(*channels)


@dataclass(frozen=True)
class SegmentationSchema(Schema):
    """Classes of the pixels of masks.

    Args:
        classes: names by index; a background is a class.
        palette: `#rrggbb` of each class; empty for that of PASCAL VOC.
        ignore_index: of pixels without a class, which neither loss nor metrics count.
    """

    palette: tuple[str, ...] = ()
    ignore_index: int = IGNORE_INDEX

    def __post_init__(self) -> None:
        if not self.palette:
            colors = tuple(voc_color(index) for index in range(len(self.classes)))
            object.__setattr__(self, "palette", colors)
        if len(self.classes) > MAX_CLASSES:
            raise ValueError(f"{len(self.classes)} classes exceed the maximum of {MAX_CLASSES}")
        if len(self.palette) != len(self.classes):
            raise ValueError(
                f"{counted(len(self.palette), 'colour')} for {len(self.classes)} classes"
            )
        if invalid := [color for color in self.palette if not re.fullmatch("#[0-9a-f]{6}", color)]:
            raise ValueError(f"{invalid[0]!r} is not a colour")
        if self.ignore_index != IGNORE_INDEX:
            raise ValueError(f"ignore_index {self.ignore_index} is not {IGNORE_INDEX}")

    @property
    def colors(self) -> list[tuple[int, int, int]]:
        """Red, green and blue of each class, in 0..255."""
        return [
            (int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16))
            for color in self.palette
        ]
