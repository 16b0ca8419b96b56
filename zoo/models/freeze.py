"""Freeze parts of a network by policy: parameters, buffers and modes.

With `requires_grad = False` alone, batch norm still updates its statistics in training mode, and
dropout and stochastic depth are active. So frozen modules are in eval mode too, and their own
`train` keeps them there: whichever module around them is put in training mode, and whether they run
as part of the network, in another one or alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from zoo.errors import BrokenBackbone, UsageError, counted, did_you_mean
from zoo.locks import Lock
from zoo.models.heads import resolve_head
from zoo.models.provenance import provenance_of
from zoo.models.stages import find_stages
from zoo.models.wrappers import unwrap
from zoo.options import Policy
from zoo.options.arguments import BY_NAME
from zoo.options.policy import FORMS, HEAD
from zoo.spec import Backbone, Head

# The method of `nn.Module` that frozen modules override; `eval` calls it too.
TRAIN = "train"

# For each network in inference mode, the number of blocks that it is in, and what to restore.
_inferring: WeakKeyDictionary[nn.Module, tuple[int, list[nn.Parameter]]] = WeakKeyDictionary()
_lock = Lock()


@dataclass(frozen=True)
class Selection:
    """The modules of a network that a policy trains.

    Args:
        trained: dotted paths of the modules that train, with all they contain; `""` is the network.
        train_mode_only: dotted paths of modules that are in training mode without being trained,
            so that the network returns its auxiliary outputs.
    """

    trained: tuple[str, ...]
    train_mode_only: tuple[str, ...]

    def trains(self, name: str) -> bool:
        """Whether the module or parameter of a dotted name trains."""
        return any(not root or name == root or name.startswith(f"{root}.") for root in self.trained)

    def roots(self, model: nn.Module) -> tuple[str, ...]:
        """Return the outermost modules that train and have parameters or buffers, in their order.

        Returns:
            Dotted paths; `("",)` for the whole network.
        """
        roots: list[str] = []
        for name, module in model.named_modules():
            covered = any(not root or name.startswith(f"{root}.") for root in roots)
            if name in self.trained and not covered and module.state_dict():
                roots.append(name)
        return tuple(roots)

    def modes(self, model: nn.Module) -> Iterator[tuple[nn.Module, bool]]:
        """Yield every module, and whether it should be in training mode."""
        for name, module in model.named_modules():
            yield module, self.trains(name) or name in self.train_mode_only


def _match_modules(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    names = [name for name, _ in model.named_modules() if name]
    matched = []
    for pattern in patterns:
        matches = [name for name in names if fnmatchcase(name, pattern)]
        if not matches:
            near = did_you_mean(pattern, ["head", "all", *names])
            top = ", ".join(name for name, _ in model.named_children())
            hint = near or f"top-level modules: {top}; policies: {FORMS}"
            raise UsageError(f"no module matches {pattern!r} in --train", hint)
        matched.extend(matches)
    return matched


def _ancestors(path: str) -> list[str]:
    steps = path.split(".")
    return [".".join(steps[:depth]) for depth in range(len(steps))]


def select_modules(model: nn.Module, heads: Sequence[Head], policy: Policy) -> Selection:
    """Return the modules of a network that a policy trains.

    Raises:
        UsageError: a pattern matches no module, or there are fewer stages.
        BrokenBackbone: a head path does not resolve.
    """
    leaves = [resolve_head(model, head.path) for head in heads]
    train_mode_only = {
        parent
        for leaf, head in zip(leaves, heads, strict=True)
        if head.role == "aux"
        for parent in _ancestors(leaf)
    }
    if policy.kind == "all":
        return Selection(("",), ())
    if policy.kind == "stages":
        stages = find_stages(model, leaves)
        if policy.stages > len(stages):
            number = counted(len(stages), "stage")
            message = f"--train stages:{policy.stages}, but the network has {number}"
            raise UsageError(message, f"give stages:{len(stages)} or fewer, or all")
        if policy.stages == len(stages):
            return Selection(("",), ())
        last = [path for stage in stages[-policy.stages :] for path in stage]
        return Selection((*last, *leaves), tuple(sorted(train_mode_only)))
    chosen = _match_modules(model, policy.patterns) if policy.kind == "modules" else []
    return Selection((*chosen, *leaves), tuple(sorted(train_mode_only)))


class _TrainFrozen:
    """The `train` of a frozen module: modules inside that train change mode, frozen ones do not.

    An attribute of the instance, so that its class stays as it is; copied and pickled with it.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def __call__(self, mode: bool = True) -> nn.Module:
        type(self.module).train(self.module, mode)  # which may be overridden in the class
        for module in self.module.modules():
            if _is_frozen(module):
                module.training = False
        return self.module


def _is_frozen(module: nn.Module) -> bool:
    return isinstance(module.__dict__.get(TRAIN), _TrainFrozen)


def unfreeze(model: nn.Module) -> None:
    """Make all parameters trainable, and all modules change mode again."""
    for module in model.modules():
        if _is_frozen(module):
            del module.__dict__[TRAIN]
    for parameter in model.parameters():
        parameter.requires_grad_(parameter.is_floating_point())


def freeze(
    model: nn.Module, backbone: Backbone | None = None, policy: str | Policy = "head"
) -> list[nn.Parameter]:
    """Freeze the parameters and modes of all modules that a policy does not train.

    Afterwards `train()` of the network, of its parts and of modules around it is safe: batch norm,
    dropout and stochastic depth of frozen modules stay in eval mode. May be called again with
    another policy, and must be after modules are exchanged, as by `convert_sync_batchnorm`.

    Args:
        model: with its heads replaced, also in a wrapper of torch; modified in place.
        backbone: its description; None for a network that zoo built.
        policy: `head`, `all`, `stages:N` or module patterns, parsed or as text.

    Returns:
        The parameters that train, for an optimizer.

    Raises:
        UsageError: the policy is malformed, or a pattern matches no module.
        BrokenBackbone: a head path does not resolve.
    """
    model = unwrap(model)
    parsed = BY_NAME["train"].read(policy) or HEAD
    selection = select_modules(model, provenance_of(model, backbone).backbone.heads, parsed)
    unfreeze(model)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(parameter.is_floating_point() and selection.trains(name))
    for module, training in selection.modes(model):
        module.training = training
        if not training:
            module.__dict__[TRAIN] = _TrainFrozen(module)
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _frozen_tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters that do not train, and the buffers of frozen modules."""
    tensors: dict[str, Tensor] = {
        name: each for name, each in model.named_parameters() if not each.requires_grad
    }
    for name, module in model.named_modules():
        if _is_frozen(module):
            tensors |= dict(module.named_buffers(name, recurse=False))
    return tensors


def _sum(tensor: Tensor) -> str:
    """Return the sum of a tensor as text, in which NaN equals NaN."""
    return str(tensor.detach().sum().item())


@contextmanager
def checking_frozen(model: nn.Module) -> Iterator[None]:
    """Check that forward passes of a block change nothing that is frozen.

    Raises:
        BrokenBackbone: a frozen tensor has another value, or requires a gradient.
    """
    tensors = _frozen_tensors(model)
    before = {name: _sum(each) for name, each in tensors.items()}
    yield
    now = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    changed = [
        name
        for name, total in before.items()
        if now[name].requires_grad or _sum(now[name]) != total
    ]
    if changed:
        number = counted(len(changed), "frozen tensor")
        message = f"the forward pass of the network changes {number}, first {changed[0]}"
        hint = "it must modify no parameter or buffer in eval mode, and set no requires_grad"
        raise BrokenBackbone(message, hint)


@contextmanager
def inference_mode_of(model: nn.Module) -> Iterator[None]:
    """Put a network in inference mode: `eval`, `no_grad`, and `requires_grad` off.

    For some shapes torch selects another kernel, with other rounding, where a weight requires a
    gradient, even under `no_grad`. Outputs would then differ between validation in training and the
    same network loaded.

    Args:
        model: stays in eval mode; `requires_grad` is restored by the last thread that leaves.
    """
    with _lock:
        blocks, trainable = _inferring.get(model, (0, []))
        model.eval()
        trainable = [*trainable, *(each for each in model.parameters() if each.requires_grad)]
        for parameter in trainable:
            parameter.requires_grad_(False)
        _inferring[model] = blocks + 1, trainable
    try:
        with torch.no_grad():
            yield
    finally:
        with _lock:
            blocks, trainable = _inferring.pop(model)
            if blocks > 1:
                _inferring[model] = blocks - 1, trainable
            else:
                for parameter in trainable:
                    parameter.requires_grad_(True)
