"""Freezing by policy, so that frozen means frozen.

`requires_grad = False` alone leaves batch norm updating its statistics, and dropout and stochastic
depth drawing numbers, whenever the network is in training mode. So the frozen parts are in eval
mode too, and stay there: a hook on the network puts the modes right before each forward pass, even
where a training loop has called `model.train()`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from zoo.errors import UsageError, did_you_mean
from zoo.models.heads import resolve_head
from zoo.models.provenance import how_made
from zoo.models.stages import find_stages
from zoo.options import Policy
from zoo.options.policy import FORMS
from zoo.spec import Backbone, Head

HOOK = "_zoo_keep_frozen"


@dataclass(frozen=True)
class Selection:
    """What a policy means on one network.

    Args:
        trained: dotted paths of the modules that train, whole; `""` is the network.
        alive: dotted paths of modules that are in training mode without training, so that the
            network gives its auxiliary outputs.
    """

    trained: tuple[str, ...]
    alive: tuple[str, ...]

    def trains(self, name: str) -> bool:
        """Whether a module or parameter of that dotted name trains."""
        return any(not root or name == root or name.startswith(f"{root}.") for root in self.trained)

    def modes(self, model: nn.Module) -> Iterator[tuple[nn.Module, bool]]:
        """Yield every module with whether it belongs in training mode."""
        for name, module in model.named_modules():
            yield module, self.trains(name) or name in self.alive


def _matched(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    names = [name for name, _ in model.named_modules() if name]
    matched = []
    for pattern in patterns:
        found = [name for name in names if fnmatchcase(name, pattern)]
        if not found:
            near = did_you_mean(pattern, ["head", "all", *names])
            top = ", ".join(name for name, _ in model.named_children())
            hint = near or f"top-level modules: {top}; policies: {FORMS}"
            raise UsageError(f"no module matches {pattern!r} in --train", hint)
        matched.extend(found)
    return matched


def _ancestors(path: str) -> list[str]:
    steps = path.split(".")
    return [".".join(steps[:depth]) for depth in range(len(steps))]


def select(model: nn.Module, heads: Sequence[Head], policy: Policy) -> Selection:
    """Work out which modules of a network a policy trains.

    Raises:
        UsageError: a pattern matches no module, or there are fewer stages.
        BrokenBackbone: a head path does not resolve.
    """
    leaves = [resolve_head(model, head.path) for head in heads]
    alive = {
        above
        for leaf, head in zip(leaves, heads, strict=True)
        if head.role == "aux"
        for above in _ancestors(leaf)
    }
    if policy.kind == "all":
        return Selection(("",), ())
    if policy.kind == "stages":
        stages = find_stages(model, leaves)
        if policy.stages > len(stages):
            message = f"--train stages:{policy.stages}, but the network has {len(stages)} stages"
            raise UsageError(message, f"give stages:{len(stages)} or fewer, or all")
        if policy.stages == len(stages):
            return Selection(("",), ())
        last = [path for stage in stages[-policy.stages :] for path in stage]
        return Selection((*last, *leaves), tuple(sorted(alive)))
    chosen = _matched(model, policy.patterns) if policy.kind == "modules" else []
    return Selection((*chosen, *leaves), tuple(sorted(alive)))


class _KeepFrozen:
    """Before each forward pass in training, puts frozen modules back into eval mode."""

    def __init__(self, selection: Selection) -> None:
        self.selection = selection

    def __call__(self, model: nn.Module, inputs: Any) -> None:
        if model.training:
            for module, training in self.selection.modes(model):
                module.training = training


def unfreeze(model: nn.Module) -> None:
    """Let everything train again, and take the hook of an earlier `freeze` away."""
    handle = model.__dict__.pop(HOOK, None)
    if isinstance(handle, RemovableHandle):
        handle.remove()
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())


def freeze(
    model: nn.Module, backbone: Backbone | None = None, policy: str | Policy = "head"
) -> list[nn.Parameter]:
    """Freeze all that a policy does not train: its parameters, and its modes.

    After it, `model.train()` is safe: batch norm, dropout and stochastic depth of the frozen parts
    stay in eval mode. It may be called again with another policy.

    Args:
        model: the network, its heads in place; changed in place.
        backbone: its description; None for a network that zoo built.
        policy: which parameters train, or its text: `head`, `all`, `stages:N` or module patterns.

    Returns:
        The parameters that train, for an optimizer.

    Raises:
        UsageError: the policy is malformed, or a pattern matches no module.
        BrokenBackbone: a head path does not resolve.
    """
    wanted = Policy.parse(policy) if isinstance(policy, str) else policy
    selection = select(model, how_made(model, backbone).backbone.heads, wanted)
    unfreeze(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.is_floating_point() and selection.trains(name))
    for module, training in selection.modes(model):
        module.training = training
    if selection.trained != ("",):
        model.__dict__[HOOK] = model.register_forward_pre_hook(_KeepFrozen(selection))
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


@contextmanager
def in_use(model: nn.Module) -> Iterator[None]:
    """Have a network as it is used: in eval mode, without gradients, and nothing that wants any.

    For some shapes torch takes another kernel where a weight wants a gradient, even while none is
    computed, and rounds otherwise. Without this a network gives other digits after it was loaded
    than while it was validated in its training.

    Args:
        model: stays in eval mode; what wanted gradients wants them again afterwards.
    """
    wanting = [parameter for parameter in model.parameters() if parameter.requires_grad]
    model.eval()
    for parameter in wanting:
        parameter.requires_grad_(False)
    try:
        with torch.no_grad():
            yield
    finally:
        for parameter in wanting:
            parameter.requires_grad_(True)
