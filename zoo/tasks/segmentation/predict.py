"""Predicted masks at the size of their images: brought back through the geometry, and written."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin
from torch import Tensor
from torch.nn.functional import grid_sample

from zoo.data.geometry import Geometry, geometry_of
from zoo.files import write_bytes
from zoo.tasks.base import Outputs, SourceImage
from zoo.tasks.segmentation.schema import IGNORE_INDEX, SegmentationSchema

# Logits of so many values are interpolated at a time.
STRIP = 1 << 24
SOURCE = "zoo-source"
OPACITY = 0.5


def predict(
    outputs: Outputs,
    images: Sequence[SourceImage],
    schema: SegmentationSchema,
    top: int,
    out: Path | None,
) -> list[dict[str, Any]]:
    """Return the classes of each image by the share of its pixels; write masks into a folder.

    Args:
        outputs: logits `[images, classes, height, width]`.
        images: whose they are.
        schema: of the model.
        top: how many classes.
        out: for a mask and an overlay of each image; None writes none.

    Returns:
        `predictions`, and `mask` and `overlay`: paths, or None.
    """
    answers = []
    for logits, image in zip(outputs.main, images, strict=True):
        mask = restore(logits, geometry_of(image.size, image.preprocess))
        paths = (None, None) if out is None else _write(mask, image, schema, out)
        answers.append(
            {
                "predictions": _fractions(mask, schema, top),
                "mask": paths[0] and str(paths[0]),
                "overlay": paths[1] and str(paths[1]),
            }
        )
    return answers


def restore(logits: Tensor, geometry: Geometry) -> NDArray[np.uint8]:
    """Return the most probable class of each pixel of an image, as it is seen.

    Logits are interpolated between pixels of the network's input, of the image and not of padding.

    Args:
        logits: `[classes, height, width]` of the network's input.
        geometry: of the image in it.

    Returns:
        `[height, width]`; pixels that the crop cut away have the ignored index.
    """
    (width, height), (cut_width, cut_height) = geometry.size, geometry.cut
    left, top = geometry.offset
    seen = logits[:, top : top + cut_height, left : left + cut_width].float()
    across = _positions(width, geometry.scaled[0], geometry.crop[0], cut_width)
    down = _positions(height, geometry.scaled[1], geometry.crop[1], cut_height)
    mask = np.full((height, width), IGNORE_INDEX, dtype=np.uint8)
    columns = (across >= -1) & (across < 1)
    rows = torch.nonzero((down >= -1) & (down < 1)).flatten()
    x = across[columns].to(seen.device)
    step = max(STRIP // (len(seen) * max(len(x), 1)), 1)
    for strip in rows.split(step):
        y = down[strip].to(seen.device)
        grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)[None]
        values = grid_sample(
            seen[None], grid, mode="bilinear", padding_mode="border", align_corners=False
        )
        best = values[0].argmax(dim=0).to("cpu", torch.uint8).numpy()
        mask[np.ix_(strip.numpy(), columns.numpy())] = best
    return mask


def _positions(full: int, scaled: int, first: int, cut: int) -> Tensor:
    """Return where the middle of each pixel of a side lies in what was cut out, in -1..1 inside."""
    middles = (torch.arange(full, dtype=torch.float64) + 0.5) * scaled / full - first
    return (2 * middles / cut - 1).float()


def _fractions(
    mask: NDArray[np.uint8], schema: SegmentationSchema, top: int
) -> list[dict[str, Any]]:
    """Return the classes with most pixels, each with its share of those that have a class."""
    counts = np.bincount(mask.ravel(), minlength=256)[: len(schema.classes)]
    total = max(int(counts.sum()), 1)
    best = np.argsort(-counts, kind="stable")[:top]
    return [
        {"class": schema.classes[index], "fraction": int(counts[index]) / total}
        for index in best.tolist()
        if counts[index]
    ]


def _write(
    mask: NDArray[np.uint8], image: SourceImage, schema: SegmentationSchema, out: Path
) -> tuple[Path, Path]:
    """Write mask and overlay of an image, over nothing but its own of an earlier time."""
    source = _digest(image.name)
    mask_path, overlay_path = _free(out, Path(image.name).stem or "image", source)
    shown = Image.fromarray(mask)
    flat = [value for color in schema.colors for value in color]
    shown.putpalette(flat + [0] * (3 * (IGNORE_INDEX - len(schema.classes))) + [255, 255, 255])
    write_bytes(mask_path, _png(shown, source))
    write_bytes(overlay_path, _png(overlay(mask, image.open(), schema), source))
    return mask_path, overlay_path


def overlay(mask: NDArray[np.uint8], image: Image.Image, schema: SegmentationSchema) -> Image.Image:
    """Return an image with its mask over it; black classes and ignored pixels leave it as it is."""
    table = np.zeros((256, 3), dtype=np.float32)
    table[: len(schema.classes)] = schema.colors
    pixels = np.asarray(image, dtype=np.uint8)
    colored = (table.sum(axis=1) > 0)[mask][..., None]
    blended = (1 - OPACITY) * pixels + OPACITY * table[mask]
    return Image.fromarray(np.where(colored, np.rint(blended), pixels).astype(np.uint8))


def _digest(name: str) -> str | None:
    """Return what tells an image's file from others; None of an image without a file."""
    try:
        path = Path(name)
        return (
            hashlib.sha256(str(path.resolve()).encode(errors="surrogateescape")).hexdigest()
            if (path.is_file())
            else None
        )
    except (OSError, ValueError):
        return None


def _free(out: Path, stem: str, source: str | None) -> tuple[Path, Path]:
    """Return names that are free, or were written for the same image before."""
    number = 1
    while True:
        name = stem if number == 1 else f"{stem}-{number}"
        paths = out / f"{name}.png", out / f"{name}-overlay.png"
        if all(not path.exists() or _is_own(path, source) for path in paths):
            return paths
        number += 1


def _is_own(path: Path, source: str | None) -> bool:
    try:
        with Image.open(path, formats=("PNG",)) as image:
            return source is not None and image.info.get(SOURCE) == source
    except (OSError, SyntaxError):
        return False


def _png(image: Image.Image, source: str | None) -> bytes:
    about = PngImagePlugin.PngInfo()
    if source is not None:
        about.add_text(SOURCE, source)
    content = io.BytesIO()
    image.save(content, "PNG", pnginfo=about)
    return content.getvalue()
