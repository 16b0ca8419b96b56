"""Pictures of a batch and of a confusion matrix, drawn with Pillow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Pictures of a batch that are shown, and how wide each of them is at least and at most.
MOST_SHOWN = 32
LEAST_WIDE, MOST_WIDE = 96, 256
CAPTION = 18
GAP = 4

# With more classes, neither names nor counts could be read.
MOST_NAMED = 60
HEADING = 20
FEWEST_PIXELS = 800
LONGEST_NAME = 28
DARKEST = np.array([8, 48, 107])

WHITE = (255, 255, 255)
BLACK = (0, 0, 0)


def _name(text: str) -> str:
    """Return a name that is one line, and not too long."""
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= LONGEST_NAME else f"{text[: LONGEST_NAME - 3]}..."


def draw_batch(images: NDArray[np.uint8], names: Sequence[str]) -> Image.Image:
    """Draw the first pictures of a batch in rows, with what each of them shows beneath it.

    Small ones are repeated pixel for pixel to whole multiples of their size, and large ones
    averaged down.

    Args:
        images: `[images, height, width, channels]`. One channel is grey; of more than three the
            first three are shown, and of two the first.
        names: of what each shows.
    """
    tiles = [_tile(image) for image in images[:MOST_SHOWN]]
    wide, high = tiles[0].size
    columns = math.ceil(math.sqrt(len(tiles)))
    rows = math.ceil(len(tiles) / columns)
    across, down = wide + GAP, high + CAPTION + GAP
    grid = Image.new("RGB", (columns * across + GAP, rows * down + GAP), WHITE)
    draw, font = ImageDraw.Draw(grid), ImageFont.load_default(12)
    for place, (tile, name) in enumerate(zip(tiles, names, strict=False)):
        left, top = GAP + place % columns * across, GAP + place // columns * down
        label = _fitting(_name(name), font, wide)
        draw.text((left, top + high + 2), label, BLACK, font)
        grid.paste(tile, (left, top))
    return grid


def _tile(pixels: NDArray[np.uint8]) -> Image.Image:
    channels = pixels.shape[2]
    shown = pixels[:, :, :3] if channels >= 3 else pixels[:, :, 0]
    image = Image.fromarray(shown).convert("RGB")
    if image.width > MOST_WIDE:
        return image.reduce(math.ceil(image.width / MOST_WIDE))
    times = math.ceil(LEAST_WIDE / image.width)
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)


def _fitting(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Return as much of a text as fits into a width."""
    while text and font.getlength(text) > width:
        text = text[:-1]
    return text


class Layout:
    """Where a confusion matrix of few classes is drawn.

    Args:
        table: counts; a row for each true class.
        names: of the classes.
    """

    def __init__(self, table: Sequence[Sequence[int]], names: Sequence[str]) -> None:
        self.font = ImageFont.load_default(13)
        self.names = [_name(name) for name in names]
        widest = max((self.font.getlength(str(n)) for row in table for n in row), default=0)
        self.cell = max(24, math.ceil(widest) + 10)
        margin = math.ceil(max(map(self.font.getlength, self.names))) + 12
        self.left, self.top = margin, HEADING + margin
        side = self.cell * len(names)
        # Wide enough for the heading too.
        self.size = max(self.left + side, 280) + GAP, self.top + side + GAP

    def box(self, row: int, column: int) -> tuple[int, int, int, int]:
        """Return left, top, right and bottom of a cell, the last two still inside it."""
        left, top = self.left + column * self.cell, self.top + row * self.cell
        return left, top, left + self.cell - 1, top + self.cell - 1


def shade(share: float) -> tuple[int, int, int]:
    """Return the colour of a share of a true class's images: white is none, dark blue all."""
    red, green, blue = (255 + (DARKEST - 255) * share).round().astype(int).tolist()
    return red, green, blue


def draw_confusion(table: Sequence[Sequence[int]], names: Sequence[str]) -> Image.Image:
    """Draw a confusion matrix: a row for each true class, a column for each predicted one.

    A cell's colour is its share of the row. Where there are few classes their names and the counts
    are written too.

    Args:
        table: counts.
        names: of the classes.
    """
    if len(names) > MOST_NAMED:
        return _draw_shares(table)
    layout = Layout(table, names)
    picture = Image.new("RGB", layout.size, WHITE)
    draw, font = ImageDraw.Draw(picture), layout.font
    draw.text((GAP, 2), "rows: true class, columns: predicted class", BLACK, font)
    for number, name in enumerate(layout.names):
        left, top, _, _ = layout.box(number, number)
        middle = top + layout.cell // 2
        draw.text((layout.left - 6, middle), name, BLACK, font, anchor="rm")
        upright = Image.new("RGB", (math.ceil(font.getlength(name)) + 2, 18), WHITE)
        ImageDraw.Draw(upright).text((0, 9), name, BLACK, font, anchor="lm")
        upright = upright.transpose(Image.Transpose.ROTATE_90)
        corner = (left + (layout.cell - upright.width) // 2, layout.top - 6 - upright.height)
        picture.paste(upright, corner)
    for row, counts in enumerate(table):
        for column, count in enumerate(counts):
            share = count / max(sum(counts), 1)
            box = layout.box(row, column)
            draw.rectangle(box, shade(share))
            center = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
            draw.text(center, str(count), WHITE if share > 0.5 else BLACK, font, anchor="mm")
    return picture


def _draw_shares(table: Sequence[Sequence[int]]) -> Image.Image:
    """Draw the colours alone, in cells of whole pixels."""
    counts = np.asarray(table, dtype=np.float64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    colors = (255 + (DARKEST - 255) * shares[:, :, None]).round().astype(np.uint8)
    times = math.ceil(FEWEST_PIXELS / len(counts))
    return Image.fromarray(colors.repeat(times, axis=0).repeat(times, axis=1))
