"""Every output that a classifier can have, read in one place; and the loss on it.

A network gives a tensor, a named tuple (Inception, GoogLeNet), a pair of main and distilled
logits, or a mapping; the adapter's heads state what stands where.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from zoo.errors import BrokenBackbone
from zoo.spec import Head
from zoo.tasks.base import Criterion, Outputs, loss_parts
from zoo.tasks.user_functions import call_loss

LOSS_TAKES = "logits [images, classes] and labels [images], int64"


def _pick(output: Any, head: Head) -> Tensor | None:
    """Return one head's logits out of a structured output; None where they are not given."""
    place = head.output
    if place is None:
        return None
    if isinstance(output, Mapping):
        found = output.get(place)
    elif isinstance(place, int):
        found = output[place] if place < len(output) else None
    else:
        found = getattr(output, place, None)
    return found if isinstance(found, Tensor) else None


def _first(output: Any) -> Any:
    if isinstance(output, Mapping):
        return output.get("logits", next(iter(output.values()), None))
    return output[0] if len(output) else None


def read_output(
    output: Any, heads: Sequence[Head], training: bool, previous: int | None = None
) -> Outputs:
    """Read main and further logits from a network's output.

    Args:
        output: what the network returned.
        heads: of its backbone.
        training: in training a distilled head has a loss of its own; otherwise its logits are
            averaged with the main ones (DeiT, arXiv 2012.12877).
        previous: how many classes the network had before its heads were replaced; what still has
            as many in training is a head that was not replaced. None where nothing was replaced.

    Raises:
        BrokenBackbone: no logits `[images, classes]` are found in it, or a head was not replaced.
    """
    extra: list[tuple[Tensor, float]] = []
    if isinstance(output, Tensor):
        main = output
    elif isinstance(output, (tuple, list, Mapping)):
        named = _pick(output, heads[0]) if heads else None
        main = _first(output) if named is None else named
        for head in heads[1:]:
            logits = _pick(output, head)
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
            what = f"{tuple(logits.shape)} beside {tuple(main.shape)}"
            hint = "every head must be named in the adapter, so that all are replaced together"
            raise BrokenBackbone(f"an auxiliary head gives {what}", hint)
    return Outputs(main, tuple(extra))


def _check_all_replaced(output: Any, main: Tensor, extra: Sequence[Tensor], previous: int) -> None:
    """Refuse logits of the old number of classes that no head accounts for.

    Raises:
        BrokenBackbone: names their position.
    """
    fields = getattr(output, "_fields", ())
    items = output.items() if isinstance(output, Mapping) else enumerate(output)
    for place, logits in items:
        if not isinstance(logits, Tensor) or any(logits is each for each in (main, *extra)):
            continue
        if logits.shape == (len(main), previous) and previous != main.shape[-1]:
            name = fields[place] if fields else place
            message = f"output {name!r} still has {previous} classes, the main one {main.shape[-1]}"
            hint = "if it is an auxiliary head, name it in the adapter, so that it is replaced too"
            raise BrokenBackbone(message, hint)


def classification_loss(
    outputs: Outputs, labels: Tensor, criterion: Criterion | None = None
) -> dict[str, Tensor]:
    """Return the loss of the main logits, and that of each further head by its weight.

    Args:
        outputs: logits of the network.
        labels: `[images]`, int64.
        criterion: called with logits `[images, classes]` in float32 and labels, gives a scalar;
            None for cross-entropy.

    Raises:
        UsageError: the user's own loss fails, or gives something else.
    """

    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        if criterion is None:
            return torch.nn.functional.cross_entropy(logits.float(), labels)
        return call_loss(criterion, logits, labels, LOSS_TAKES)

    return loss_parts(outputs, labels, loss)


def check_logits(logits: Tensor) -> None:
    """Refuse probabilities, of which cross-entropy makes nearly nothing to learn from.

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
