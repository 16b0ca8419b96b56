"""Determine by forward passes which image sizes a network supports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import nn

from zoo.errors import BrokenBackbone, one_line
from zoo.models.build_options import size_refused
from zoo.models.heads import blank_images
from zoo.models.plugin_errors import plugin_errors
from zoo.models.provenance import provenance_of
from zoo.models.state_dict import load_state
from zoo.spec import Backbone, Preprocess

STEP = 32


def size_conflict(model: nn.Module, preprocess: Preprocess) -> str | None:
    """Return why a network cannot be trained on images of a size; None where it can.

    Runs the network once on two blank images in training mode, where auxiliary heads run too.

    Args:
        model: its buffers and modes are restored.
        preprocess: size and channels of the images.
    """
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = {part: part.training for part in model.modules()}
    model.train()
    try:
        with torch.no_grad(), plugin_errors("it fails"):
            model(blank_images(model, preprocess, 2))
    except BrokenBackbone as error:
        return one_line(error.__cause__ or error).partition(": ")[2][:160]
    finally:
        load_state(model, before)
        for part, mode in modes.items():
            part.training = mode
    return None


def smallest_size(model: nn.Module, preprocess: Preprocess, sizes: Sequence[int]) -> int:
    """Return the first of some sizes that a network supports, or its own size.

    Args:
        model: its buffers and modes are restored.
        preprocess: with the network's own size.
        sizes: in pixels, smallest first.
    """
    own = min(preprocess.height, preprocess.width)
    for size in (size for size in sizes if size < own):
        if size_conflict(model, replace(preprocess, size=size, resize=None)) is None:
            return size
    return own


def nearest_size(model: nn.Module, preprocess: Preprocess, size: int) -> int | None:
    """Return the nearest multiple of 32 that a network supports; None if there is none near."""
    down = size // STEP * STEP
    candidates = (down + STEP, down, down + 2 * STEP, down + 3 * STEP)
    for near in sorted(candidates, key=lambda near: abs(near - size)):
        if near and size_conflict(model, replace(preprocess, size=near, resize=None)) is None:
            return near
    return None


def check_size(model: nn.Module, backbone: Backbone, size: int) -> None:
    """Check that a network can be trained on images of a size.

    Args:
        model: built for that size, as far as its library supports it.
        backbone: as described.
        size: requested height and width in pixels.

    Raises:
        UsageError: the network fails; the hint is the nearest supported size.
    """
    preprocess = provenance_of(model).preprocess
    if reason := size_conflict(model, preprocess):
        near = None if backbone.fixed_size else nearest_size(model, preprocess, size)
        raise size_refused(backbone, size, reason, near)
