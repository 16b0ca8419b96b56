"""Call losses and metrics of the user; report their failures as `UsageError`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from zoo.errors import UsageError, one_line
from zoo.models.plugin_errors import is_out_of_memory

Criterion = Callable[[Tensor, Tensor], Tensor]
UserMetrics = Mapping[str, Callable[[Tensor, Tensor], Any]]

LOSS_ARGUMENTS = "the outputs and the targets of a batch"
METRIC_ARGUMENTS = "all outputs and targets of a split"


def call_loss(
    criterion: Criterion, outputs: Tensor, targets: Tensor, arguments: str = LOSS_ARGUMENTS
) -> Tensor:
    """Compute a loss of the user on a batch, outputs cast to float32.

    Args:
        criterion: the loss.
        outputs: of the network.
        targets: of the batch.
        arguments: description of the arguments, for messages.

    Raises:
        UsageError: it fails, or returns no differentiable scalar.
    """
    try:
        value: Any = criterion(outputs.float(), targets)
    except Exception as error:  # user code may raise anything
        if is_out_of_memory(error):
            raise
        message = f"the loss fails: {one_line(error)}"
        raise UsageError(message, f"it is called with {arguments}") from error
    if not isinstance(value, Tensor) or value.ndim or not value.requires_grad:
        returned = f"a {type(value).__name__}"
        if isinstance(value, Tensor):
            returned = f"shape {list(value.shape)}" if value.ndim else "a number without gradients"
        hint = "it must return one number that depends on the outputs, such as a mean over images"
        raise UsageError(f"the loss returned {returned}", hint)
    return value


def call_metrics(
    metrics: UserMetrics, outputs: Tensor, targets: Tensor, arguments: str = METRIC_ARGUMENTS
) -> dict[str, float]:
    """Compute metrics of the user on all outputs and targets of a split.

    Args:
        metrics: by name.
        outputs: of the split.
        targets: of the split.
        arguments: description of the arguments, for messages.

    Raises:
        UsageError: one fails, or returns no finite number.
    """
    values = {}
    for name, metric in metrics.items():
        try:
            values[name] = float(metric(outputs, targets))
        except Exception as error:  # user code may raise anything
            message = f"the metric {name} fails: {one_line(error)}"
            raise UsageError(message, f"it is called with {arguments}") from error
        if not math.isfinite(values[name]):
            raise UsageError(f"the metric {name} is {values[name]}", "it must be a number")
    return values


def function_name(function: Any) -> str:
    """Return the name of a loss function in the plan, with its public scalar attributes."""
    qualname = getattr(function, "__qualname__", None)
    if qualname is not None:
        return str(qualname).rpartition("<locals>.")[2]
    inner = getattr(function, "func", None)  # of functools.partial
    attributes = function.keywords if inner is not None else getattr(function, "__dict__", {})
    settings = ", ".join(
        f"{name}={value}"
        for name, value in attributes.items()
        if isinstance(value, (int, float, str)) and name != "training" and not name.startswith("_")
    )
    owner = function_name(inner) if inner is not None else type(function).__name__
    return f"{owner}({settings})"
