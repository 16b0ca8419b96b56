"""Call an adapter's builder, and check its result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from zoo.errors import BrokenBackbone, UsageError
from zoo.models.heads import run_blank
from zoo.models.plugin_errors import plugin_errors
from zoo.models.wrappers import unwrap
from zoo.registry.plugin_code import plugin_code
from zoo.spec import Backbone, resolve_target

# The networks that builders returned: zoo replaces heads and weights in place.
_built: WeakSet[nn.Module] = WeakSet()


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

    Layers of `torch.nn` that are lazy get their shapes from one forward pass.

    Raises:
        BrokenPlugin: the builder cannot be imported.
        BrokenBackbone: the builder fails, or does not return a new network that can be trained and
            saved.
    """
    with (
        plugin_code(backbone.plugin, f"building {backbone.id}"),
        plugin_errors(f"{backbone.id} does not build"),
        _restored_modes() as dtype,
    ):
        builder = resolve_target(backbone.builder, f"backbone {backbone.id}")
        model = _checked(backbone, builder(weights=None, **kwargs))
        if any(map(is_lazy, [*model.parameters(), *model.buffers()])):
            run_blank(model, backbone.preprocess)
        state = model.state_dict()
    for name, value in state.items():
        if (misfit := _misfit(value)) is not None:
            raise BrokenBackbone(f"{backbone.id} has {name!r} in its state dict, which {misfit}")
    dtypes = {parameter.dtype for parameter in model.parameters()}
    if not dtypes:
        raise BrokenBackbone(f"{backbone.id} has no parameters")
    if dtype not in dtypes:
        given = ", ".join(sorted(str(each).removeprefix("torch.") for each in dtypes))
        wanted = str(dtype).removeprefix("torch.")
        message = f"{backbone.id} has parameters of {given}, and its input is {wanted}"
        raise BrokenBackbone(message, f"its builder must return it as {wanted}: `.to({dtype})`")
    return model


@contextmanager
def _restored_modes() -> Iterator[torch.dtype]:
    """Restore torch's default dtype and gradient mode, and yield the dtype."""
    dtype, gradients = torch.get_default_dtype(), torch.is_grad_enabled()
    try:
        yield dtype
    finally:
        torch.set_default_dtype(dtype)
        torch.set_grad_enabled(gradients)


def _checked(backbone: Backbone, model: Any) -> nn.Module:
    """Return what a builder returned, which must be a new network in no wrapper.

    Raises:
        BrokenBackbone: it is not.
    """
    kind = type(model).__name__
    if not isinstance(model, nn.Module):
        raise BrokenBackbone(f"{backbone.id} built a {kind}, no torch module")
    if isinstance(model, torch.jit.ScriptModule) or unwrap(model) is not model:
        message = f"{backbone.id} built a wrapper of a network, {kind}"
        raise BrokenBackbone(message, "its builder must return the network itself")
    if model in _built:
        message = f"the builder of {backbone.id} returned the same {kind} again"
        raise BrokenBackbone(message, "it must build a new one whenever it is called")
    _built.add(model)
    return model


def _misfit(value: Any) -> str | None:
    """Return why an entry of a state dict cannot be trained or saved; None where it can."""
    if not isinstance(value, Tensor):
        return "is no tensor"
    if value.layout != torch.strided:
        return "is sparse"
    if value.is_inference():
        return "was created in inference mode; use no_grad"
    if value.is_meta and torch.get_default_device().type != "meta":
        return "has no values: it is on the meta device"
    if any(step == 0 and size > 1 for step, size in zip(value.stride(), value.shape, strict=True)):
        return "has several elements at one place in memory; clone it"
    return None


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
