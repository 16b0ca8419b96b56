"""Optimizers by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from zoo.errors import UsageError, did_you_mean
from zoo.options.table import OPTIMIZERS

FUSED = ("cpu", "cuda")


def make_optimizer(
    name: str, parameters: Sequence[nn.Parameter], lr: float, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Return an optimizer over the given parameters.

    Args:
        name: `sgd` (with momentum), `adam` (arXiv 1412.6980) or `adamw` (arXiv 1711.05101).
        parameters: to train.
        lr: learning rate before the schedule's factor.
        momentum: for `sgd`; the others use torch's default betas.
        weight_decay: as torch applies it.

    Raises:
        UsageError: no optimizer has the name.
    """
    # One kernel for all parameters, on the devices that implement it.
    fused = all(p.device.type in FUSED and p.is_floating_point() for p in parameters)
    shared: dict[str, Any] = {"lr": lr, "weight_decay": weight_decay, "fused": fused or None}
    if name == "sgd":
        return torch.optim.SGD(parameters, momentum=momentum, **shared)
    if name == "adam":
        return torch.optim.Adam(parameters, **shared)
    if name == "adamw":
        return torch.optim.AdamW(parameters, **shared)
    hint = did_you_mean(name, OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}")
    raise UsageError(f"no optimizer is named {name!r}", hint)
