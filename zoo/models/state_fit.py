"""Fit a state dict to a network: prefixes of its names, and what does not fit."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from zoo.errors import WeightsError
from zoo.models.wrappers import COMPILED

# A counter of batch norm, which is missing in state dicts of before torch 0.4.1, and used by none
# of its default settings.
COUNTER = "num_batches_tracked"
# The running variance of batch norm.
VARIANCE = "running_var"


def without_prefix(
    tensors: Mapping[str, Tensor], names: Collection[str]
) -> tuple[dict[str, Tensor], str]:
    """Take the prefix of a wrapper off the names of a state dict.

    `module.` is of `DataParallel`, `_orig_mod.` of `torch.compile`, at any depth; `model.` and the
    like are attributes of the module that contained the network.

    Args:
        tensors: as read.
        names: of the network's state dict.

    Returns:
        The state dict, and the prefix, by which the most names become the network's; empty where
        none does so for more names than are the network's already.
    """
    compiled = f"{COMPILED}."
    plain = {name.replace(compiled, ""): tensor for name, tensor in tensors.items()}
    removed = compiled if len(plain) == len(tensors) and plain.keys() != tensors.keys() else ""
    if not removed or any(compiled in name for name in names):
        plain, removed = dict(tensors), ""
    prefix = _best_prefix(plain, set(names))
    stripped = {name.removeprefix(prefix): tensor for name, tensor in plain.items()}
    if len(stripped) != len(plain):  # a name with and without it
        return plain, removed
    return stripped, f"{prefix}{removed}"


def _best_prefix(names: Collection[str], known: set[str]) -> str:
    counts = Counter({"": sum(name in known for name in names)})
    for name in names:
        dots = (position for position, letter in enumerate(name) if letter == ".")
        counts.update(name[: dot + 1] for dot in dots if name[dot + 1 :] in known)
    return counts.most_common(1)[0][0]


@dataclass(frozen=True)
class Misfit:
    """Entries of a state dict that do not fit a network, by kind.

    Args:
        missing: names of the network's that it lacks.
        unknown: names that the network does not have.
        shapes: names of both whose shapes or types differ; each followed by the two.
    """

    missing: tuple[str, ...] = ()
    unknown: tuple[str, ...] = ()
    shapes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.missing or self.unknown or self.shapes)

    def __str__(self) -> str:
        kinds = {
            "missing": self.missing,
            "unknown": self.unknown,
            "of another shape or type": self.shapes,
        }
        return ", ".join(
            f"{len(names):,} {kind} (first {names[0]})" for kind, names in kinds.items() if names
        )


def compare_state(
    tensors: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    without: Collection[str] = (),
    exact: bool = False,
) -> Misfit:
    """Return what of a state dict does not fit that of a network.

    Args:
        tensors: the state dict.
        state: of the network.
        without: module paths whose entries are not compared.
        exact: whether a floating-point type that loses digits is a difference; of other types any
            conversion is.
    """
    inside = tuple(f"{path}." for path in without)
    missing = [n for n in state if n not in tensors and n.rpartition(".")[2] != COUNTER]
    unknown = [name for name in tensors if name not in state]
    both = {
        name: _difference(tensors[name], own, exact)
        for name, own in state.items()
        if name in tensors
    }
    other = {name: difference for name, difference in both.items() if difference}
    return Misfit(
        tuple(name for name in missing if not name.startswith(inside)),
        tuple(name for name in unknown if not name.startswith(inside)),
        tuple(f"{name}: {text}" for name, text in other.items() if not name.startswith(inside)),
    )


def _difference(tensor: Tensor, own: Tensor, exact: bool) -> str | None:
    """Return how a tensor differs in shape or type; None where it can be copied."""
    if tensor.shape != own.shape:
        return f"{list(tensor.shape)} instead of {list(own.shape)}"
    floating = tensor.is_floating_point() and own.is_floating_point()
    narrower = floating and tensor.itemsize < own.itemsize
    if tensor.dtype != own.dtype and not (narrower or (floating and not exact)):
        return f"{tensor.dtype} instead of {own.dtype}".replace("torch.", "")
    return None


def describe_casts(tensors: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> str:
    """Return which types a network's own replace when a state dict is loaded; empty for none."""
    casts = sorted(
        {
            f"{tensors[name].dtype} is converted to {own.dtype}".replace("torch.", "")
            for name, own in state.items()
            if name in tensors and tensors[name].dtype != own.dtype
        }
    )
    return ", ".join(casts)


def check_values(
    tensors: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str | Path
) -> None:
    """Check that a state dict is finite wherever the network is, and no variance negative.

    Args:
        tensors: the state dict.
        state: of the network; masks of some networks contain infinities.
        source: of the state dict, for messages.

    Raises:
        WeightsError: it is not; names the first such tensor.
    """
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        least, greatest = _range(tensor)
        if name.rpartition(".")[2] == VARIANCE and least < 0:
            message = f"{source} has a negative variance: {least:g} in {name}"
            raise WeightsError(message, "the file is damaged; give other weights")
        if math.isfinite(least) and math.isfinite(greatest):
            continue
        own = state.get(name)
        if own is None or torch.isfinite(own).all():
            odd = int((~torch.isfinite(_computable(tensor))).sum())
            message = f"{source} is not finite: {odd:,} of {tensor.numel():,} values of {name}"
            hint = "NaN or infinite weights come from a training that diverged; give other weights"
            raise WeightsError(message, hint)


def _range(tensor: Tensor) -> tuple[float, float]:
    """Return the least and the greatest value; NaN where there is one. Allocates nothing."""
    least, greatest = torch.aminmax(_computable(tensor))
    return float(least), float(greatest)


def _computable(tensor: Tensor) -> Tensor:
    """Return a tensor in a type that torch computes with, which those of eight bits are not."""
    return tensor.float() if tensor.itemsize == 1 else tensor
