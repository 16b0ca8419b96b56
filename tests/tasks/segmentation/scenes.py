"""Synthetic scenes with exact masks: antialiased shapes on crops of the embedded images."""

import random
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import zoo.data

SHAPES = ("background", "disc", "triangle", "cross")
EMBEDDED = Path(next(iter(zoo.data.__path__))) / "clipart10"
SUPERSAMPLED = 4


def cut_out(kind: str, size: int, draw: random.Random) -> Image.Image:
    """Return an antialiased RGBA shape with random shading."""
    side = size * SUPERSAMPLED
    alpha = Image.new("L", (side, side))
    pen, third = ImageDraw.Draw(alpha), side // 3
    if kind == "disc":
        pen.ellipse((0, 0, side - 1, side - 1), fill=255)
    elif kind == "triangle":
        pen.polygon([(side // 2, 0), (side - 1, side - 1), (0, side - 1)], fill=255)
    else:
        pen.rectangle((third, 0, 2 * third, side - 1), fill=255)
        pen.rectangle((0, third, side - 1, 2 * third), fill=255)
    alpha = alpha.rotate(draw.uniform(-20, 20), Image.Resampling.BILINEAR)
    alpha = alpha.resize((size, size), Image.Resampling.BOX)
    shade = np.linspace(draw.uniform(0.5, 0.8), 1, size)[:, None, None]
    color = np.array([draw.randrange(60, 256) for _ in range(3)])
    pixels = Image.fromarray((shade * color * np.ones((size, size, 1))).astype(np.uint8))
    pixels.putalpha(alpha)
    return pixels


def scene(
    draw: random.Random, backgrounds: list[Path], size: tuple[int, int] = (96, 72)
) -> tuple[Image.Image, Image.Image]:
    """Return an RGB image and its mask of mode P."""
    with Image.open(draw.choice(backgrounds)) as opened:
        image = opened.convert("RGB").resize((size[0] * 2, size[1] * 2))
    left, top = draw.randrange(size[0]), draw.randrange(size[1])
    image = image.crop((left, top, left + size[0], top + size[1]))
    mask = Image.new("P", size)
    for _ in range(draw.randrange(1, 4)):
        index = draw.randrange(1, len(SHAPES))
        part = cut_out(SHAPES[index], draw.randrange(24, 44), draw)
        corner = draw.randrange(-8, size[0] - 20), draw.randrange(-8, size[1] - 20)
        image.paste(part, corner, part)
        mask.paste(index, corner, part.getchannel("A").point(lambda value: 255 * (value >= 128)))
    return image, mask


def write_scenes(folder: Path, count: int, seed: int, size: tuple[int, int] = (96, 72)) -> Path:
    """Write scenes as `images/` and `masks/`; return the folder."""
    draw = random.Random(seed)
    backgrounds = sorted(EMBEDDED.glob("train/*/*"))
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        image, mask = scene(draw, backgrounds, size)
        mask.putpalette([0, 0, 0, 220, 40, 40, 40, 220, 40, 40, 40, 220])
        image.save(folder / "images" / f"{number:04}.png")
        mask.save(folder / "masks" / f"{number:04}.png")
    return folder
