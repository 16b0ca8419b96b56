"""Images of a batch and of a confusion matrix, drawn with Pillow."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Images of a batch that are drawn, and the range of their width in pixels.
MAX_IMAGES = 32
MIN_WIDTH, MAX_WIDTH = 96, 256
CAPTION = 18
GAP = 4

# With more classes, names and counts would be illegible.
MAX_NAMED_CLASSES = 60
HEADING = 20
MIN_MATRIX_PIXELS = 800
MAX_NAME_LENGTH = 28
DARKEST = np.array([8, 48, 107])

WHITE = (255, 255, 255)
BLACK = (0, 0, 0)


def _name(text: str) -> str:
    """Return a name in one line, truncated to `MAX_NAME_LENGTH`."""
    text = "".join(c if c.isprintable() else " " for c in text)
    return text if len(text) <= MAX_NAME_LENGTH else f"{text[: MAX_NAME_LENGTH - 3]}..."


def draw_batch(images: NDArray[np.uint8], names: Sequence[str]) -> Image.Image:
    """Draw the first images of a batch in a grid, with captions.

    Small images are upsampled to an integer multiple by nearest neighbour, large ones are averaged
    down.

    Args:
        images: `[images, height, width, channels]`, uint8. One channel is drawn in grey; of more
            than three, the first three are drawn, of two the first.
        names: caption of each.
    """
    tiles = [_tile(image) for image in images[:MAX_IMAGES]]
    width, height = tiles[0].size
    columns = math.ceil(math.sqrt(len(tiles)))
    rows = math.ceil(len(tiles) / columns)
    across, down = width + GAP, height + CAPTION + GAP
    grid = Image.new("RGB", (columns * across + GAP, rows * down + GAP), WHITE)
    draw, font = ImageDraw.Draw(grid), ImageFont.load_default(12)
    for index, (tile, name) in enumerate(zip(tiles, names, strict=False)):
        left, top = GAP + index % columns * across, GAP + index // columns * down
        label = _truncate(_name(name), font, width)
        draw.text((left, top + height + 2), label, BLACK, font)
        grid.paste(tile, (left, top))
    return grid


def _tile(pixels: NDArray[np.uint8]) -> Image.Image:
    channels = pixels.shape[2]
    visible = pixels[:, :, :3] if channels >= 3 else pixels[:, :, 0]
    image = Image.fromarray(visible).convert("RGB")
    if image.width > MAX_WIDTH:
        return image.reduce(math.ceil(image.width / MAX_WIDTH))
    factor = math.ceil(MIN_WIDTH / image.width)
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _truncate(text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Truncate a text to a width in pixels."""
    while text and font.getlength(text) > width:
        text = text[:-1]
    return text


class Layout:
    """Geometry of a confusion matrix with names and counts.

    Args:
        table: counts; rows are true classes.
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
        # The heading needs 280 pixels.
        self.size = max(self.left + side, 280) + GAP, self.top + side + GAP

    def box(self, row: int, column: int) -> tuple[int, int, int, int]:
        """Return left, top, right and bottom of a cell, all inclusive."""
        left, top = self.left + column * self.cell, self.top + row * self.cell
        return left, top, left + self.cell - 1, top + self.cell - 1


def shade(share: float) -> tuple[int, int, int]:
    """Return the colour of a fraction of a row: white for 0, dark blue for 1."""
    red, green, blue = (255 + (DARKEST - 255) * share).round().astype(int).tolist()
    return red, green, blue


def draw_confusion(table: Sequence[Sequence[int]], names: Sequence[str]) -> Image.Image:
    """Draw a confusion matrix: rows are true, columns predicted classes.

    The colour of a cell is its fraction of the row. Names and counts are drawn for up to
    `MAX_NAMED_CLASSES` classes.

    Args:
        table: counts.
        names: of the classes.
    """
    if len(names) > MAX_NAMED_CLASSES:
        return _draw_shares(table)
    layout = Layout(table, names)
    image = Image.new("RGB", layout.size, WHITE)
    draw, font = ImageDraw.Draw(image), layout.font
    draw.text((GAP, 2), "rows: true class, columns: predicted class", BLACK, font)
    for number, name in enumerate(layout.names):
        left, top, _, _ = layout.box(number, number)
        middle = top + layout.cell // 2
        draw.text((layout.left - 6, middle), name, BLACK, font, anchor="rm")
        upright = Image.new("RGB", (math.ceil(font.getlength(name)) + 2, 18), WHITE)
        ImageDraw.Draw(upright).text((0, 9), name, BLACK, font, anchor="lm")
        upright = upright.transpose(Image.Transpose.ROTATE_90)
        corner = (left + (layout.cell - upright.width) // 2, layout.top - 6 - upright.height)
        image.paste(upright, corner)
    for row, counts in enumerate(table):
        for column, count in enumerate(counts):
            share = count / max(sum(counts), 1)
            box = layout.box(row, column)
            draw.rectangle(box, shade(share))
            center = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
            draw.text(center, str(count), WHITE if share > 0.5 else BLACK, font, anchor="mm")
    return image


def _draw_shares(table: Sequence[Sequence[int]]) -> Image.Image:
    """Draw the colours only, in cells of whole pixels."""
    counts = np.asarray(table, dtype=np.float64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    colors = (255 + (DARKEST - 255) * shares[:, :, None]).round().astype(np.uint8)
    factor = math.ceil(MIN_MATRIX_PIXELS / len(counts))
    return Image.fromarray(colors.repeat(factor, axis=0).repeat(factor, axis=1))
