"""Masks as operations of torch, for networks that are exported."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from zoo.data.exportable import Axis, Placement
from zoo.tasks.segmentation.schema import IGNORE_INDEX


def masks(logits: Tensor, placement: Placement) -> Tensor:
    """Return the most probable class of each pixel, as `zoo.tasks.segmentation.predict.resample`.

    Args:
        logits: `[images, classes, height, width]` of the network's input.
        placement: of the images in it.

    Returns:
        `[images, height, width]` uint8 of the images' own size; pixels outside of the crop have
        the ignored index.
    """
    down, rows = _positions(placement.down, logits.shape[2])
    across, columns = _positions(placement.across, logits.shape[3])
    height, width = placement.down.length, placement.across.length
    grid = torch.stack(
        [across[None, :].expand(height, width), down[:, None].expand(height, width)], dim=-1
    )
    grid = grid[None].expand(logits.shape[0], height, width, 2)
    values = grid_sample(logits.float(), grid, padding_mode="border", align_corners=False)
    best = values.argmax(dim=1).to(torch.int32)
    inside = rows[:, None] & columns[None, :]
    return torch.where(inside, best, IGNORE_INDEX).to(torch.uint8)


def _positions(axis: Axis, size: int) -> tuple[Tensor, Tensor]:
    """Return pixel centres of a side in normalized coordinates of the input, and which it has."""
    pixels = torch.arange(axis.length).double() + 0.5
    centres = pixels * axis.scaled.double() / axis.full.double() - axis.first.double()
    cut = axis.cut.double()
    inside = (centres >= 0) & (centres < cut)
    # Interpolation must not reach into the padding.
    visible = torch.minimum(centres.clamp(min=0.5), cut - 0.5) + axis.offset.double()
    return (2 * visible / size - 1).float(), inside
