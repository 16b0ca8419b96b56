"""Read logits from the output of a classifier, and compute the loss.

A network returns a tensor, a named tuple (Inception, GoogLeNet), a pair of main and distilled
logits, a mapping, or a dataclass; the adapter's heads name the field of each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.errors import BrokenBackbone, counted
from zoo.models.network_output import named_outputs
from zoo.spec import Head
from zoo.tasks.base import Criterion, Outputs, loss_parts
from zoo.tasks.user_functions import call_loss

LOSS_ARGUMENTS = "logits [images, classes] and labels [images], int64"


def _select(output: Any, head: Head) -> Tensor | None:
    """Return the logits of a head from a structured output; None if absent."""
    field = head.output
    if field is None:
        return None
    if isinstance(output, Mapping):
        logits = output.get(field)
    elif isinstance(field, int):
        logits = output[field] if field < len(output) else None
    else:
        logits = getattr(output, field, None)
    return logits if isinstance(logits, Tensor) else None


def _first(output: Any) -> Any:
    if isinstance(output, Mapping):
        return output.get("logits", next(iter(output.values()), None))
    return output[0] if len(output) else None


def read_output(
    output: Any, heads: Sequence[Head], training: bool, previous: int | None = None
) -> Outputs:
    """Read main and auxiliary logits from the output of a network.

    Args:
        output: of the network.
        heads: of its backbone.
        training: in training a distilled head has a separate loss; in evaluation its logits are
            averaged with the main ones (DeiT, arXiv 2012.12877).
        previous: number of classes before the heads were replaced, to detect heads that were not;
            None if no head was replaced.

    Raises:
        BrokenBackbone: it has no logits `[images, classes]`, or a head was not replaced.
    """
    extra: list[tuple[Tensor, float]] = []
    output = named_outputs(output)
    if isinstance(output, Tensor):
        main = output
    elif isinstance(output, (tuple, list, Mapping)):
        named = _select(output, heads[0]) if heads else None
        main = _first(output) if named is None else named
        for head in heads[1:]:
            logits = _select(output, head)
            if logits is None:
                continue
            if head.role == "distill" and not training:
                main = (main + logits) / 2
            elif training:
                extra.append((logits, head.loss_weight))
        if training and previous is not None and isinstance(main, Tensor):
            _check_all_replaced(output, main, [logits for logits, _ in extra], previous)
    else:
        raise BrokenBackbone(f"the network returned a {type(output).__name__}, not logits")
    if not isinstance(main, Tensor) or main.ndim != 2:
        shape = tuple(main.shape) if isinstance(main, Tensor) else type(main).__name__
        raise BrokenBackbone(f"the network returned {shape}, not logits [images, classes]")
    for logits, _ in extra:
        if logits.shape != main.shape:
            shapes = f"{tuple(logits.shape)} beside {tuple(main.shape)}"
            hint = "every head must be named in the adapter, so that all are replaced together"
            raise BrokenBackbone(f"an auxiliary head returns {shapes}", hint)
    return Outputs(main, tuple(extra))


def _check_all_replaced(output: Any, main: Tensor, extra: Sequence[Tensor], previous: int) -> None:
    """Refuse logits of the previous number of classes that belong to no head.

    Raises:
        BrokenBackbone: names their field.
    """
    fields = getattr(output, "_fields", ())
    items = output.items() if isinstance(output, Mapping) else enumerate(output)
    for field, logits in items:
        if not isinstance(logits, Tensor) or any(logits is known for known in (main, *extra)):
            continue
        if logits.shape == (len(main), previous) and previous != main.shape[-1]:
            name = fields[field] if fields else field
            classes = counted(previous, "class")
            message = f"output {name!r} still has {classes}, the main one {main.shape[-1]}"
            hint = "if it is an auxiliary head, name it in the adapter, so that it is replaced too"
            raise BrokenBackbone(message, hint)


def most_probable(logits: Tensor, count: int) -> Tensor:
    """Return the classes of the largest logits, `[images, count]`, that of `argmax` first.

    Of equal ones, such as all of an image without features, `topk` returns any first.

    Args:
        logits: `[images, classes]`.
        count: of each image, at most all classes.
    """
    first = logits.argmax(dim=1, keepdim=True)
    return logits.scatter(1, first, torch.inf).topk(min(count, logits.shape[1]), dim=1).indices


def classification_loss(
    outputs: Outputs, labels: Tensor, criterion: Criterion | None = None
) -> dict[str, Tensor]:
    """Return the loss of the main logits, and the weighted loss of each auxiliary head.

    Args:
        outputs: logits of the network.
        labels: `[images]`, int64.
        criterion: called with logits `[images, classes]` in float32 and labels, returns a scalar;
            None for cross-entropy.

    Raises:
        UsageError: the criterion fails, or returns no differentiable scalar.
    """

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        if criterion is None:
            return torch.nn.functional.cross_entropy(logits.float(), labels)
        return call_loss(criterion, logits, labels, LOSS_ARGUMENTS)

    return loss_parts(outputs, labels, loss)


def check_logits(logits: Tensor) -> None:
    """Refuse probabilities, on which the gradients of cross-entropy nearly vanish.

    Args:
        logits: `[images, classes]`, of a few images.

    Raises:
        BrokenBackbone: every row is positive and sums to one.
    """
    values = logits.detach().float()
    if values.shape[1] > 1 and bool((values >= 0).all()):
        sums = values.sum(dim=1)
        if torch.allclose(sums, torch.ones_like(sums), atol=1e-2):
            message = "the network gives probabilities: it ends in a softmax, not in its head"
            hint = "remove the softmax; cross-entropy applies it itself, and predictions do too"
            raise BrokenBackbone(message, hint)
