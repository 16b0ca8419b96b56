"""Calling an adapter's builder, and checking what it returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from zoo.errors import BrokenBackbone, UsageError
from zoo.models.plugin_errors import guard
from zoo.spec import Backbone, resolve_target


def check_trainable(backbone: Backbone) -> None:
    """Refuse a backbone that has no head to replace.

    Raises:
        UsageError: gives the adapter's reason.
    """
    if backbone.refuse:
        hint = "`zoo list` marks those that cannot be fine-tuned"
        raise UsageError(f"{backbone.id} cannot be fine-tuned: {backbone.refuse}", hint)


def build_network(backbone: Backbone, kwargs: Mapping[str, Any]) -> nn.Module:
    """Call a backbone's builder and check what it returns.

    Raises:
        BrokenPlugin: the builder cannot be imported.
        BrokenBackbone: it fails, or returns no network.
    """
    builder = resolve_target(backbone.builder, f"backbone {backbone.id}")
    with guard(f"{backbone.id} does not build"):
        model = builder(weights=None, **kwargs)
        if not isinstance(model, nn.Module):
            raise BrokenBackbone(f"{backbone.id} built a {type(model).__name__}, no torch module")
        state = model.state_dict()
    if odd := [name for name, value in state.items() if not isinstance(value, torch.Tensor)]:
        raise BrokenBackbone(f"{backbone.id} has {odd[0]!r} in its state dict, which is no tensor")
    if next(model.parameters(), None) is None:
        raise BrokenBackbone(f"{backbone.id} has no parameters")
    return model


def build_on_meta(backbone: Backbone, kwargs: Mapping[str, Any]) -> nn.Module:
    """Build a network for its structure alone; torch's generator is left as it was.

    On torch's meta device, without memory; where that fails, on the CPU.

    Raises:
        BrokenPlugin, BrokenBackbone: as `build_network`.
    """
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                return build_network(backbone, kwargs)
        except Exception:  # a builder that reads its own numbers fails in many ways
            return build_network(backbone, kwargs)
