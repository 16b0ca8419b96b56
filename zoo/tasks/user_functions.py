"""Calls a loss and metrics that the user gave; where they fail, the error is a UsageError."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from zoo.errors import UsageError, one_line
from zoo.models.plugin_errors import is_out_of_memory
from zoo.tasks.base import Criterion, UserMetrics

LOSS_TAKES = "the outputs and the targets of a batch"
METRIC_TAKES = "all outputs and targets of a split"


def call_loss(
    criterion: Criterion, outputs: Tensor, targets: Tensor, takes: str = LOSS_TAKES
) -> Tensor:
    """Call the user's own loss on a batch, outputs in float32.

    Args:
        criterion: the loss.
        outputs: of the network.
        targets: of the batch.
        takes: what it is called with, for messages.

    Raises:
        UsageError: it fails, or gives something else than a scalar that gradients come from.
    """
    try:
        value: Any = criterion(outputs.float(), targets)
    except Exception as error:  # their code can raise anything
        if is_out_of_memory(error):
            raise
        message = f"the loss fails: {one_line(error)}"
        raise UsageError(message, f"it is called with {takes}") from error
    if not isinstance(value, Tensor) or value.ndim or not value.requires_grad:
        what = f"a {type(value).__name__}"
        if isinstance(value, Tensor):
            what = f"shape {list(value.shape)}" if value.ndim else "a number without gradients"
        advice = "it must return one number that depends on the outputs, such as a mean over images"
        raise UsageError(f"the loss returned {what}", advice)
    return value


def call_metrics(
    metrics: UserMetrics, outputs: Tensor, targets: Tensor, takes: str = METRIC_TAKES
) -> dict[str, float]:
    """Call the user's own metrics on all outputs and targets of a split.

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
