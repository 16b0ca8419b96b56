"""Read or combine the logits of a segmentation network, and compute the loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate

from zoo.errors import BrokenBackbone, UsageError
from zoo.models.network_output import named_outputs
from zoo.spec import Head
from zoo.tasks.base import Criterion, Outputs, loss_parts
from zoo.tasks.segmentation.schema import IGNORE_INDEX
from zoo.tasks.user_functions import call_loss

LOSS_ARGUMENTS = "logits [images, classes, height, width] and masks [images, height, width], int64"


def read_output(
    output: Any, heads: Sequence[Head], training: bool, previous: int | None = None
) -> Outputs:
    """Read logits `[images, classes, height, width]`. See `BaseTask.read_output`."""
    output = named_outputs(output)
    if isinstance(output, Tensor):
        output = {heads[0].output or "out": output} if heads else {"out": output}
    if not isinstance(output, Mapping):
        raise BrokenBackbone(f"the network returned a {type(output).__name__}, not logits")
    key = heads[0].output if heads else None
    main = output.get("out" if key is None else key)
    if not isinstance(main, Tensor) or main.ndim != 4:
        shape = tuple(main.shape) if isinstance(main, Tensor) else f"the outputs {list(output)}"
        message = f"the network returned {shape}, not logits [images, classes, height, width]"
        raise BrokenBackbone(message)
    auxiliary = []
    for head in heads if training else ():
        logits = output.get(head.output) if head.role == "aux" else None
        if isinstance(logits, Tensor):
            auxiliary.append((logits, head.loss_weight))
    known = [main, *(logits for logits, _ in auxiliary)]
    for name, logits in output.items() if training else ():
        if not isinstance(logits, Tensor):
            continue
        read = any(logits is each for each in known)
        unreplaced = logits.ndim == 4 and logits.shape[1] == previous != main.shape[1]
        if (read and logits.shape != main.shape) or (not read and unreplaced):
            shapes = f"output {name!r} is {list(logits.shape)} beside {list(main.shape)}"
            hint = "every head must be named in the adapter, so that all are replaced together"
            raise BrokenBackbone(f"an auxiliary head was not replaced: {shapes}", hint)
    return Outputs(main, tuple(auxiliary))


def combine_heads(
    outputs: Mapping[str, tuple[Head, Tensor]], size: tuple[int, int], training: bool
) -> Outputs:
    """Sum main heads and interpolate, as the networks of torchvision do.

    Args:
        outputs: `[images, classes, rows, columns]` of each head.
        size: height and width of the network's input, to which logits are interpolated.
        training: whether to include auxiliary heads.
    """
    mains = [output for head, output in outputs.values() if head.role == "main"]
    main = mains[0]
    for other in mains[1:]:
        main = main + other
    auxiliary = [
        (_upsample(output, size), head.loss_weight)
        for head, output in outputs.values()
        if head.role == "aux" and training
    ]
    return Outputs(_upsample(main, size), tuple(auxiliary))


def _upsample(logits: Tensor, size: tuple[int, int]) -> Tensor:
    return interpolate(logits, size=size, mode="bilinear", align_corners=False)


def check_shape(outputs: Outputs) -> None:
    """Refuse logits without spatial extent.

    Raises:
        BrokenBackbone: they are 1 x 1.
    """
    if outputs.main.shape[2:] == (1, 1):
        message = f"the network returned logits {list(outputs.main.shape)}: one pixel per image"
        raise BrokenBackbone(message, "a segmentation network must return logits for each pixel")


def segmentation_loss(
    outputs: Outputs, masks: Tensor, criterion: Criterion | None = None
) -> dict[str, Tensor]:
    """Return the loss of the main logits, and the weighted loss of each auxiliary head.

    Args:
        outputs: of the network.
        masks: `[images, height, width]` uint8, on the outputs' device.
        criterion: called with float32 logits and int64 masks; None for cross-entropy.

    Raises:
        UsageError: the criterion fails, or has another `ignore_index`.
    """
    targets = masks.long()
    if criterion is None:
        return loss_parts(outputs, targets, labelled_cross_entropy)
    if getattr(criterion, "ignore_index", IGNORE_INDEX) != IGNORE_INDEX:
        message = f"the loss has ignore_index={criterion.ignore_index}"  # type: ignore[attr-defined]
        hint = f"pixels without a class are {IGNORE_INDEX}: give ignore_index={IGNORE_INDEX}"
        raise UsageError(message, hint)
    if not bool((targets != IGNORE_INDEX).any()):
        # The mean of a criterion over no pixels is NaN.
        return loss_parts(outputs, targets, labelled_cross_entropy)

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        return call_loss(criterion, logits, targets, LOSS_ARGUMENTS)

    return loss_parts(outputs, targets, loss)


def labelled_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the mean over labelled pixels; zero, with zero gradient, if there are none."""
    total = cross_entropy(logits.float(), targets, ignore_index=IGNORE_INDEX, reduction="sum")
    labelled: Tensor = (targets != IGNORE_INDEX).sum()
    return total / torch.clamp(labelled, min=1)
