"""Cutting any network into stages, from its own structure.

`stages:N` must mean something for every backbone, so stages are read off the module tree, not off
names: the children of the network in order, a container that is nearly everything replaced by its
own children (`features`, `blocks`, `encoder.layers`), modules that only normalise, pool or drop
joined to the stage before them, and whatever holds a head cut up so that the head stands apart.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

MOST = 0.5
FEW = 2


def _size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _has_weights(module: nn.Module) -> bool:
    """Whether a module transforms features, as a convolution does and a norm does not."""
    return any(parameter.ndim > 1 for parameter in module.parameters())


def _holds(path: str, heads: Sequence[str]) -> bool:
    return any(head == path or head.startswith(f"{path}.") for head in heads)


def _children(path: str, module: nn.Module) -> list[tuple[str, nn.Module]]:
    prefix = f"{path}." if path else ""
    return [(prefix + name, child) for name, child in module.named_children()]


def _trunk(units: list[tuple[str, nn.Module]]) -> int | None:
    """Return the position of a unit that is nearly the whole network, and can be cut up."""
    weighty = [position for position, (_, module) in enumerate(units) if _has_weights(module)]
    total = sum(_size(module) for _, module in units)
    for position in weighty:
        path, module = units[position]
        parts = [child for _, child in _children(path, module) if _has_weights(child)]
        if parts and _size(module) > MOST * total and len(weighty) - 1 <= FEW:
            return position
    return None


def find_stages(model: nn.Module, heads: Sequence[str]) -> list[list[str]]:
    """Return the stages of a network, first to last, each as dotted module paths.

    Args:
        model: the network.
        heads: dotted paths of its head leaves, the main one first; they are in no stage.

    Auxiliary classifiers branch off in the middle, so their layers count to the first stage.
    """
    units = _children("", model)
    aside: list[str] = []
    while held := [unit for unit in units if _holds(unit[0], heads)]:
        path, module = held[0]
        position = units.index(held[0])
        inner = [] if path in heads else _children(path, module)
        if heads and not _holds(path, heads[:1]):
            aside.extend(name for name, _ in inner if name not in heads)
            inner = [unit for unit in inner if _holds(unit[0], heads) and unit[0] not in heads]
        units[position : position + 1] = inner
    while (trunk := _trunk(units)) is not None:
        units[trunk : trunk + 1] = _children(*units[trunk])
    stages: list[list[str]] = []
    weighty: list[bool] = []
    for path, module in units:
        if stages and (not _has_weights(module) or not weighty[-1]):
            stages[-1].append(path)
            weighty[-1] = weighty[-1] or _has_weights(module)
        else:
            stages.append([path])
            weighty.append(_has_weights(module))
    if stages:
        stages[0] = aside + stages[0]
    return stages
