"""Split any network into stages by its module tree.

`stages:N` must be defined for every backbone, so stages do not depend on names. They are the
children of the network in order, where a container with nearly all parameters is replaced by its
children (`features`, `blocks`, `encoder.layers`), modules without weight matrices (normalisation,
pooling, dropout) join the stage before them, and containers of heads are split so that the heads
are separate.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

# A container is expanded where it has more than this share of the parameters, beside at most this
# number of other modules with weights.
TRUNK_SHARE = 0.5
TRUNK_SIBLINGS = 2


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _has_weights(module: nn.Module) -> bool:
    """Whether a module has weight matrices, as a convolution does and a norm does not."""
    return any(parameter.ndim > 1 for parameter in module.parameters())


def _contains_head(path: str, heads: Sequence[str]) -> bool:
    return any(head == path or head.startswith(f"{path}.") for head in heads)


def _children(path: str, module: nn.Module) -> list[tuple[str, nn.Module]]:
    prefix = f"{path}." if path else ""
    return [(prefix + name, child) for name, child in module.named_children()]


def _trunk(units: list[tuple[str, nn.Module]]) -> int | None:
    """Return the position of a container with most of the network's parameters, if any."""
    weighted = [position for position, (_, module) in enumerate(units) if _has_weights(module)]
    total = sum(_size(module) for _, module in units)
    for position in weighted:
        path, module = units[position]
        parts = [child for _, child in _children(path, module) if _has_weights(child)]
        if parts and _size(module) > TRUNK_SHARE * total and len(weighted) - 1 <= TRUNK_SIBLINGS:
            return position
    return None


def find_stages(model: nn.Module, heads: Sequence[str]) -> list[list[str]]:
    """Return the stages of a network, first to last, each as dotted module paths.

    Auxiliary classifiers branch off in the middle, so their layers belong to the first stage.

    Args:
        model: the network.
        heads: dotted paths of its head leaves, the main one first; they are in no stage.
    """
    units = _children("", model)
    auxiliary: list[str] = []
    while containers := [unit for unit in units if _contains_head(unit[0], heads)]:
        path, module = containers[0]
        position = units.index(containers[0])
        inner = [] if path in heads else _children(path, module)
        if heads and not _contains_head(path, heads[:1]):
            auxiliary.extend(name for name, _ in inner if name not in heads)
            inner = [
                unit for unit in inner if _contains_head(unit[0], heads) and unit[0] not in heads
            ]
        units[position : position + 1] = inner
    while (trunk := _trunk(units)) is not None:
        units[trunk : trunk + 1] = _children(*units[trunk])
    stages: list[list[str]] = []
    weighted: list[bool] = []
    for path, module in units:
        if stages and (not _has_weights(module) or not weighted[-1]):
            stages[-1].append(path)
            weighted[-1] = weighted[-1] or _has_weights(module)
        else:
            stages.append([path])
            weighted.append(_has_weights(module))
    if stages:
        stages[0] = auxiliary + stages[0]
    return stages
