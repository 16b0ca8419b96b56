"""Losses and metrics that a user gives: called, and what they return checked; for every task."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

from zoo.errors import UsageError, one_line
from zoo.models.plugin_errors import is_out_of_memory
from zoo.tasks.base import Criterion, Outputs, UserMetrics


def loss_parts(
    outputs: Outputs, targets: Tensor, loss: Callable[[Tensor, Tensor], Tensor]
) -> dict[str, Tensor]:
    """Return the loss of the main output, and that of each further one by its weight.

    Args:
        outputs: of the network.
        targets: of the batch.
        loss: of one output.
    """
    parts = {"main": loss(outputs.main, targets)}
    for number, (output, weight) in enumerate(outputs.auxiliary, start=1):
        parts[f"auxiliary{number}"] = weight * loss(output, targets)
    return parts


def call_criterion(criterion: Criterion, output: Tensor, targets: Tensor, takes: str) -> Tensor:
    """Return what the user's own loss gives.

    Args:
        criterion: the loss.
        output: of the network.
        targets: of the batch.
        takes: what it is called with, for messages.

    Raises:
        UsageError: it fails, or gives something that cannot be minimised.
    """
    try:
        value = criterion(output, targets)
    except Exception as error:  # their code can raise anything
        if is_out_of_memory(error):
            raise
        message = f"the loss fails: {one_line(error)}"
        raise UsageError(message, f"it is called with {takes}") from error
    check_scalar(value)
    return value


def check_scalar(total: object) -> None:
    """Refuse what cannot be minimised, of a loss that the user gave.

    Raises:
        UsageError: it is not a scalar that gradients come from.
    """
    if not isinstance(total, Tensor) or total.ndim or not total.requires_grad:
        what = f"a {type(total).__name__}"
        if isinstance(total, Tensor):
            what = f"shape {list(total.shape)}" if total.ndim else "a number without gradients"
        hint = "it must return one number that depends on the logits, such as a mean over images"
        raise UsageError(f"the loss returned {what}", hint)


def call_metrics(
    metrics: UserMetrics, outputs: Tensor, targets: Tensor, takes: str
) -> dict[str, float]:
    """Return what the user's own metrics give of a whole split.

    Args:
        metrics: by name.
        outputs: of the split.
        targets: of the split.
        takes: what they are called with, for messages.

    Raises:
        UsageError: one fails, or gives no number.
    """
    values = {}
    for name, metric in metrics.items():
        try:
            values[name] = float(metric(outputs, targets))
        except Exception as error:  # their code can raise anything
            message = f"the metric {name} fails: {one_line(error)}"
            raise UsageError(message, f"it is called with {takes}") from error
        if not math.isfinite(values[name]):
            raise UsageError(f"the metric {name} is {values[name]}", "it must be a number")
    return values
