"""Learning rates as pure functions of progress, and optimizers by name."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from zoo.errors import UsageError, did_you_mean

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("constant", "step", "cosine")
WARMUP = 0.1
FUSED = ("cpu", "cuda")

Factor = Callable[[float, int], float]


def _constant(progress: float, epoch: int) -> float:
    return 1.0


def _step(size: int, gamma: float) -> Factor:
    return lambda progress, epoch: gamma ** (epoch // size)


def _cosine(warmup: float) -> Factor:
    def factor(progress: float, epoch: int) -> float:
        if progress < warmup:
            return progress / warmup
        return 0.5 * (1 + math.cos(math.pi * (progress - warmup) / (1 - warmup)))

    return factor


def parse_schedule(text: str) -> Factor:
    """Return the factor on the learning rate, given progress in 0..1 and epochs done.

    Args:
        text: `constant`; `step:SIZE,GAMMA`, times GAMMA every SIZE epochs, by default `step:7,0.1`;
            `cosine:WARMUP`, from 0 up over that share of the steps, by default 0.1, then half a
            cosine down (SGDR without restarts, arXiv 1608.03983).

    Raises:
        UsageError: it has none of these forms.
    """
    name, colon, rest = text.partition(":")
    if name not in SCHEDULES:
        hint = did_you_mean(name, SCHEDULES, f"one of {', '.join(SCHEDULES)}")
        raise UsageError(f"no schedule is named {name!r}", hint)
    try:
        if name == "step":
            size, gamma = rest.split(",") if colon else ("7", "0.1")
            if int(size) < 1 or not 0 < float(gamma) <= 1:
                raise ValueError
            return _step(int(size), float(gamma))
        if name == "cosine":
            warmup = float(rest) if colon else WARMUP
            if not 0 <= warmup < 1:
                raise ValueError
            return _cosine(warmup)
        if colon:
            raise ValueError
    except ValueError:
        hint = "write constant, step:7,0.1 or cosine:0.1"
        raise UsageError(f"{text!r} is not a schedule", hint) from None
    return _constant


def make_optimizer(
    name: str, parameters: Sequence[nn.Parameter], lr: float, momentum: float, weight_decay: float
) -> torch.optim.Optimizer:
    """Return an optimizer over the parameters that train.

    Args:
        name: `sgd` (with momentum), `adam` (arXiv 1412.6980) or `adamw` (arXiv 1711.05101).
        parameters: those that train, and no others.
        lr: learning rate before the schedule's factor.
        momentum: for `sgd`; the others keep torch's own betas.
        weight_decay: as torch applies it.

    Raises:
        UsageError: no optimizer has the name.
    """
    # One kernel for all parameters, where the device has one.
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
