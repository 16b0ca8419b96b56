"""Every output that a network can have, normalised in one place.

A network gives a tensor, a named tuple (Inception, GoogLeNet), a pair of main and distilled
logits, or a mapping; what stands where is said by the adapter's heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from zoo.errors import BrokenBackbone
from zoo.spec import Head


@dataclass(frozen=True)
class Logits:
    """What a network said.

    Args:
        main: `[images, classes]`, what predictions come from.
        extra: logits that only the loss looks at, each with its weight.
    """

    main: Tensor
    extra: tuple[tuple[Tensor, float], ...] = field(default=())


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


def read_output(output: Any, heads: Sequence[Head], training: bool) -> Logits:
    """Normalise a network's output into main and further logits.

    Args:
        output: what the network returned.
        heads: of its backbone.
        training: in training a distilled head has a loss of its own; otherwise its logits are
            averaged with the main ones (DeiT, arXiv 2012.12877).

    Raises:
        BrokenBackbone: no logits `[images, classes]` are found in it.
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
    return Logits(main, tuple(extra))


def classification_loss(logits: Logits, labels: Tensor) -> Tensor:
    """Return cross-entropy of the main logits plus each further one by its weight, a mean."""
    loss = torch.nn.functional.cross_entropy(logits.main.float(), labels)
    for extra, weight in logits.extra:
        loss = loss + weight * torch.nn.functional.cross_entropy(extra.float(), labels)
    return loss
