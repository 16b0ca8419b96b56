"""Predicted masks: resampled to the size of their images, and written to files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import grid_sample

from zoo.data.geometry import Geometry, geometry_of
from zoo.data.png_files import encode_png, source_id, unused_paths
from zoo.files import write_bytes
from zoo.tasks.base import Outputs, SourceImage
from zoo.tasks.segmentation.schema import IGNORE_INDEX, SegmentationSchema

# Values of logits interpolated at a time, to bound memory.
STRIP = 1 << 24
OPACITY = 0.5


def predict(
    outputs: Outputs,
    images: Sequence[SourceImage],
    schema: SegmentationSchema,
    top: int,
    out: Path | None,
) -> list[dict[str, Any]]:
    """Return the share of pixels of each class by image; write masks into a folder.

    Args:
        outputs: logits `[images, classes, height, width]`.
        images: of the outputs.
        schema: of the model.
        top: number of classes to return.
        out: folder for a mask and an overlay of each image; None writes none.

    Returns:
        `predictions`, and `mask` and `overlay`: paths, or None.
    """
    answers = []
    for logits, image in zip(outputs.main, images, strict=True):
        mask = resample(logits, geometry_of(image.size, image.preprocess))
        paths = (None, None) if out is None else _write(mask, image, schema, out)
        answers.append(
            {
                "predictions": _fractions(mask, schema, top),
                "mask": paths[0] and str(paths[0]),
                "overlay": paths[1] and str(paths[1]),
            }
        )
    return answers


def resample(logits: Tensor, geometry: Geometry) -> NDArray[np.uint8]:
    """Return the most probable class of each pixel of an image, upright.

    Logits are interpolated bilinearly, padding excluded.

    Args:
        logits: `[classes, height, width]` of the network's input.
        geometry: of the image in that input.

    Returns:
        `[height, width]` uint8; pixels outside the crop have the ignored index.
    """
    (width, height), (cut_width, cut_height) = geometry.size, geometry.cut
    left, top = geometry.offset
    visible = logits[:, top : top + cut_height, left : left + cut_width].float()
    across = _positions(width, geometry.scaled[0], geometry.crop[0], cut_width)
    down = _positions(height, geometry.scaled[1], geometry.crop[1], cut_height)
    mask = np.full((height, width), IGNORE_INDEX, dtype=np.uint8)
    columns = (across >= -1) & (across < 1)
    rows = torch.nonzero((down >= -1) & (down < 1)).flatten()
    x = across[columns].to(visible.device)
    step = max(STRIP // (len(visible) * max(len(x), 1)), 1)
    for strip in rows.split(step):
        y = down[strip].to(visible.device)
        grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], dim=-1)[None]
        values = grid_sample(
            visible[None], grid, mode="bilinear", padding_mode="border", align_corners=False
        )
        best = values[0].argmax(dim=0).to("cpu", torch.uint8).numpy()
        mask[np.ix_(strip.numpy(), columns.numpy())] = best
    return mask


def _positions(full: int, scaled: int, first: int, cut: int) -> Tensor:
    """Return pixel centres of a side in normalized coordinates of the crop, -1..1 inside."""
    centres = (torch.arange(full, dtype=torch.float64) + 0.5) * scaled / full - first
    return (2 * centres / cut - 1).float()


def _fractions(
    mask: NDArray[np.uint8], schema: SegmentationSchema, top: int
) -> list[dict[str, Any]]:
    """Return the most frequent classes with their share of the pixels inside the crop."""
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
    """Write mask and overlay of an image; overwrite only earlier ones of the same image."""
    source, stem = source_id(image.name), Path(image.name).stem or "image"
    mask_path, overlay_path = unused_paths(out, stem, (".png", "-overlay.png"), source)
    indexed = Image.fromarray(mask)
    flat = [value for color in schema.colors for value in color]
    indexed.putpalette(flat + [0] * (3 * (IGNORE_INDEX - len(schema.classes))) + [255, 255, 255])
    write_bytes(mask_path, encode_png(indexed, source))
    write_bytes(overlay_path, encode_png(overlay(mask, image.open(), schema), source))
    return mask_path, overlay_path


def overlay(mask: NDArray[np.uint8], image: Image.Image, schema: SegmentationSchema) -> Image.Image:
    """Blend a mask into an image; black classes and ignored pixels are transparent."""
    palette = np.zeros((256, 3), dtype=np.float32)
    palette[: len(schema.classes)] = schema.colors
    pixels = np.asarray(image, dtype=np.uint8)
    colored = (palette.sum(axis=1) > 0)[mask][..., None]
    blended = (1 - OPACITY) * pixels + OPACITY * palette[mask]
    return Image.fromarray(np.where(colored, np.rint(blended), pixels).astype(np.uint8))
