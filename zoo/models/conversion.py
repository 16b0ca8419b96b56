"""Conversion of published weights that name the same tensors differently."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from zoo.errors import WeightsError
from zoo.models.builder import build_on_meta
from zoo.tensorfile import read_checkpoint

if TYPE_CHECKING:
    from torch import Tensor

    from zoo.spec import Backbone, Weights


def by_position(path: Path, backbone: Backbone, weights: Weights) -> dict[str, Tensor]:
    """Convert a checkpoint of an implementation that registers the same tensors in the same order.

    Tensors are matched by position; the last part of the name (`weight`, `running_mean`, ...), the
    shape and the dtype must be equal. Name it in `zoo.Weights` as
    `convert="zoo.models.conversion:by_position"`.

    Args:
        path: the published file.
        backbone: of the weights.
        weights: their description.

    Returns:
        The state dict under the backbone's names.

    Raises:
        WeightsError: the file does not contain weights of this network.
    """
    source = read_checkpoint(path)
    target = build_on_meta(backbone, {**backbone.kwargs, **weights.kwargs}).state_dict()
    if len(source) != len(target):
        raise WeightsError(
            f"{path.name} has {len(source)} tensors, {backbone.name} has {len(target)}"
        )
    for (source_name, tensor), (name, expected) in zip(source.items(), target.items(), strict=True):
        same = source_name.rpartition(".")[2] == name.rpartition(".")[2]
        if not same or tensor.shape != expected.shape or tensor.dtype != expected.dtype:
            raise WeightsError(
                f"{path.name}: {source_name} {tuple(tensor.shape)} does not match "
                f"{name} {tuple(expected.shape)} of {backbone.name}"
            )
    return dict(zip(target, source.values(), strict=True))
