"""Whether builder arguments that differ make another network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree

from zoo.errors import ZooError
from zoo.models.builder import build_network, builder_defaults
from zoo.models.plugin_errors import plugin_errors
from zoo.models.state_dict import load_state
from zoo.spec import Backbone, Preprocess


def same_arguments(backbone: Backbone, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether a builder receives equal values by both, its own defaults included."""
    if _plain(one) == _plain(other):
        return True
    defaults = builder_defaults(backbone)
    names = one.keys() | other.keys()
    first, second = ({**defaults, **kwargs} for kwargs in (one, other))
    return all(
        name in first and name in second and _plain(first[name]) == _plain(second[name])
        for name in names
    )


def _plain(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=repr)


def same_network(
    backbone: Backbone,
    one: Mapping[str, Any],
    other: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    preprocess: Preprocess,
) -> bool:
    """Whether two sets of builder arguments make networks with equal tensors and outputs.

    Args:
        backbone: that is built twice, where the arguments differ.
        one: builder arguments.
        other: builder arguments.
        tensors: loaded into both; the others are random, and equal.
        preprocess: with the size of their input.

    Returns:
        False also where either does not build.
    """
    if same_arguments(backbone, one, other):
        return True
    try:
        with torch.random.fork_rng(devices=[]):
            first, second = (build_network(backbone, kwargs) for kwargs in (one, other))
        state = first.state_dict()
        shapes = {name: tensor.shape for name, tensor in state.items()}
        if shapes != {name: tensor.shape for name, tensor in second.state_dict().items()}:
            return False
        own = {n: t for n, t in tensors.items() if n in shapes and t.shape == shapes[n]}
        state = {**{name: tensor.clone() for name, tensor in state.items()}, **own}
        return _outputs_equal(first, second, state, preprocess)
    except ZooError:
        return False


def _outputs_equal(
    first: nn.Module, second: nn.Module, state: Mapping[str, Tensor], preprocess: Preprocess
) -> bool:
    """Whether two networks compute equal outputs with one state dict."""
    shape = (2, preprocess.channels, preprocess.height, preprocess.width)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    outputs = []
    for model in (first, second):
        model.eval()
        load_state(model, dict(state))
        with torch.no_grad(), plugin_errors("the network fails"):
            outputs.append(_pytree.tree_leaves(model(images)))
    return len(outputs[0]) == len(outputs[1]) and all(
        torch.equal(a, b) if isinstance(a, Tensor) and isinstance(b, Tensor) else a == b
        for a, b in zip(*outputs, strict=True)
    )
