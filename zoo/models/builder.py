"""Call an adapter's builder, and check its result."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from typing import Any

import torch
from torch import nn

from zoo.errors import BrokenBackbone, UsageError
from zoo.models.plugin_errors import plugin_errors
from zoo.registry.plugin_code import plugin_code
from zoo.spec import Backbone, resolve_target


def check_trainable(backbone: Backbone) -> None:
    """Check that a backbone can be fine-tuned.

    Raises:
        UsageError: it cannot, with the adapter's reason.
    """
    if backbone.refuse:
        hint = "`zoo list` marks those that cannot be fine-tuned"
        raise UsageError(f"{backbone.id} cannot be fine-tuned: {backbone.refuse}", hint)


def build_network(backbone: Backbone, kwargs: Mapping[str, Any]) -> nn.Module:
    """Call a backbone's builder and check its result.

    Raises:
        BrokenPlugin: the builder cannot be imported.
        BrokenBackbone: the builder fails, or does not return a network.
    """
    with (
        plugin_code(backbone.plugin, f"building {backbone.id}"),
        plugin_errors(f"{backbone.id} does not build"),
    ):
        builder = resolve_target(backbone.builder, f"backbone {backbone.id}")
        model = builder(weights=None, **kwargs)
        if not isinstance(model, nn.Module):
            raise BrokenBackbone(f"{backbone.id} built a {type(model).__name__}, no torch module")
        state = model.state_dict()
    if odd := [name for name, value in state.items() if not isinstance(value, torch.Tensor)]:
        raise BrokenBackbone(f"{backbone.id} has {odd[0]!r} in its state dict, which is no tensor")
    if next(model.parameters(), None) is None:
        raise BrokenBackbone(f"{backbone.id} has no parameters")
    return model


def builder_defaults(backbone: Backbone) -> dict[str, Any]:
    """Return the defaults of a builder's own parameters; empty where it does not state them.

    Raises:
        BrokenPlugin: the builder cannot be imported.
    """
    try:
        builder = resolve_target(backbone.builder, f"backbone {backbone.id}")
        parameters = signature(builder).parameters
    except (TypeError, ValueError):
        return {}
    return {name: p.default for name, p in parameters.items() if p.default is not p.empty}


def build_on_meta(backbone: Backbone, kwargs: Mapping[str, Any]) -> nn.Module:
    """Build a network for its structure alone, without advancing torch's generator.

    Uses the meta device, which allocates no memory; the CPU where that fails.

    Raises:
        BrokenPlugin, BrokenBackbone: as `build_network`.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return build_network(backbone, kwargs)
        except Exception:  # a builder that reads tensor values may raise anything
            return build_network(backbone, kwargs)
