"""Extract features of given images: the input of the main head, by the engine that applies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from zoo.data.find import count_images, in_folders
from zoo.data.images import as_many
from zoo.engine.backends.choice import AUTO, pays_from
from zoo.engine.features.hooks import HeadHooks
from zoo.engine.runtime.device import environment_errors
from zoo.engine.runtime.network import Network
from zoo.engine.runtime.stream import FailedImage, read_images
from zoo.errors import BrokenBackbone, UsageError
from zoo.inference.engines import PredictedBatch, head_inputs
from zoo.modelfile import ModelCard
from zoo.models.freeze import inference_mode_of
from zoo.models.provenance import provenance_of


def extract_features(
    network: Network,
    images: Any,
    batch_size: int = 32,
    engine: str = AUTO,
    card: ModelCard | None = None,
) -> Tensor:
    """Run images through a network in eval mode, and return the inputs of its main head.

    Args:
        network: its modes are restored.
        images: as for `zoo.features`.
        batch_size: images per forward pass.
        engine: `auto`, as for predictions, or the name of one.
        card: of the model file; None for any other network.

    Returns:
        `[images, width]` float32 on the CPU, or more dimensions where the head's input has more;
        inputs of several main heads are concatenated in the last dimension.

    Raises:
        DataError: an image cannot be read, or an array or tensor is no image.
        UsageError: there are no images, the backbone has no head, or the inputs of its main heads
            have different shapes.
        BrokenBackbone: the network fails, or its head does not run.
    """
    module = network.module
    pairs = zip(network.paths, network.heads, strict=True)
    paths = [path for path, head in pairs if head.role == "main"]
    if not paths:
        backbone = provenance_of(module).backbone.id
        message = f"{backbone} has no head to read features at"
        raise UsageError(message, "choose another backbone")
    given = as_many(images)
    count = count_images(given, pays_from(network))
    batches = _read(given, network, batch_size)
    rows: list[Tensor] = []
    for group, computed in head_inputs(
        network, card, engine, batches, batch_size, count, heads=False
    ):
        if isinstance(group, list):  # the whole batch, after its groups
            continue
        inputs = _in_torch(network, paths, group[1]) if computed is None else computed
        if missing := [path for path in paths if path not in inputs]:
            raise BrokenBackbone(f"nothing arrives at the head {missing[0]!r}")
        rows.append(_concatenate([inputs[path].float().cpu() for path in paths], paths))
    if not rows:
        raise UsageError("there are no images", "give at least one")
    return torch.cat(rows)


def _in_torch(network: Network, paths: list[str], pixels: Tensor) -> dict[str, Tensor]:
    """Return the inputs of heads that a forward pass in torch computes."""
    module = network.module
    with network.lock:
        modes = {part: part.training for part in module.modules()}
        try:
            with (
                inference_mode_of(module),
                HeadHooks(module, paths) as hooks,
                environment_errors("reading features"),
            ):
                network.forward(pixels)
        finally:
            for part, mode in modes.items():
                part.training = mode
    return hooks.inputs


def _concatenate(features: list[Tensor], paths: list[str]) -> Tensor:
    """Concatenate the inputs of heads in the last dimension."""
    if len({each.shape[:-1] for each in features}) > 1:
        shapes = ", ".join(f"{p} {[*f.shape[1:]]}" for p, f in zip(paths, features, strict=True))
        message = f"the inputs of the main heads cannot be concatenated: {shapes} for each image"
        raise UsageError(message, "choose a backbone with one main head")
    return features[0] if len(features) == 1 else torch.cat(features, dim=-1)


def _read(images: Iterable[Any], network: Network, batch_size: int) -> Iterator[PredictedBatch]:
    """Yield prepared images in batches.

    Raises:
        DataError: an image cannot be read; names it.
    """
    every = in_folders(images)
    for batch in read_images(every, network.preprocess, network.device, batch_size):
        for each in batch:
            if isinstance(each, FailedImage):
                raise each.error
        yield batch
