"""Features: what arrives at a backbone's main head, taken from the network as it runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from zoo.data.images import prepare_each
from zoo.data.transforms import normalize
from zoo.engine.features.hooks import Tap
from zoo.engine.runtime.allocator import reused_memory
from zoo.engine.runtime.device import autocast, memory_errors
from zoo.errors import BrokenBackbone, UsageError
from zoo.models.freeze import in_use
from zoo.models.heads import resolve_head
from zoo.models.plugin_errors import guard
from zoo.models.provenance import Made
from zoo.spec import Preprocess


def read_features(
    module: nn.Module, made: Made, images: Any, batch_size: int = 32, precision: str = "fp32"
) -> Tensor:
    """Run images through a network in eval mode, and return what its main head reads.

    Args:
        module: the network; its modes are put back.
        made: how it was made.
        images: as `zoo.features` takes them.
        batch_size: images per forward pass.
        precision: `fp32`, or `bf16` for autocast.

    Returns:
        `[images, width]` float32 on the CPU, or more dimensions where the head reads more; of
        several main heads what they read, side by side.

    Raises:
        DataError: an image cannot be read.
        UsageError: a tensor is no batch of images.
        BrokenBackbone: the network fails, or nothing arrives at its head.
    """
    heads = [head for head in made.backbone.heads if head.role == "main"]
    paths = [resolve_head(module, head.path) for head in heads]
    if not paths:
        raise UsageError(f"{made.backbone.id} has no head to read features at")
    device = next(module.parameters()).device
    modes = {part: part.training for part in module.modules()}
    rows: list[Tensor] = []
    try:
        with (
            in_use(module),
            Tap(module, paths) as tap,
            reused_memory(),
            memory_errors("reading features"),
        ):
            for batch in _batches(images, made.preprocess, batch_size):
                inputs = batch.to(device)
                raw = inputs.dtype == torch.uint8
                inputs = normalize(inputs, made.preprocess) if raw else inputs.float()
                tap.seen.clear()
                with guard("the network fails"), autocast(device, precision):
                    module(inputs)
                if missing := [path for path in paths if path not in tap.seen]:
                    raise BrokenBackbone(f"nothing arrives at the head {missing[0]!r}")
                found = [tap.seen[path].float().cpu() for path in paths]
                rows.append(found[0] if len(found) == 1 else torch.cat(found, dim=-1))
    finally:
        for part, mode in modes.items():
            part.training = mode
    if not rows:
        raise UsageError("there are no images", "give at least one")
    return torch.cat(rows)


def _batches(images: Any, preprocess: Preprocess, batch_size: int) -> Iterable[Tensor]:
    if not isinstance(images, Tensor):
        yield from prepare_each(images, preprocess, batch_size)
        return
    if images.ndim != 4 or images.shape[1] != preprocess.channels:
        shape = f"[images, {preprocess.channels}, height, width]"
        message = f"a tensor {list(images.shape)} is no batch {shape}"
        raise UsageError(message, "one image needs a first dimension too: image[None]")
    if images.dtype != torch.uint8 and not images.is_floating_point():
        message = f"a tensor of {str(images.dtype).removeprefix('torch.')} is no batch of images"
        raise UsageError(message, "give uint8, or floats as zoo.transform makes them")
    if len(images):
        yield from images.split(batch_size)
