"""Detect a loss that is not finite, and name its step."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zoo.data.bad_images import no_readable_image
from zoo.engine.plan.plan import Phase
from zoo.engine.runtime.distributed import SINGLE, Ranks
from zoo.errors import Diverged

# Steps between two checks on an accelerator, which has to finish its work for each.
INTERVAL = 50


@dataclass(frozen=True)
class StepRecord:
    """A step of a training.

    Args:
        step: counted from 1 within the epoch.
        batch: number of its batch in the epoch.
        lr: learning rate.
        loss: sum over its images, a scalar.
    """

    step: int
    batch: int
    lr: float
    loss: Tensor


class DivergenceCheck:
    """Checks the losses of an epoch's steps.

    Args:
        phase: of the plan.
        epoch: counted from 1 within the phase.
        device: of the losses.
        ranks: of the processes that share each batch.
        save_batch: writes the batch of a number, and returns where; None where it cannot.
    """

    def __init__(
        self,
        phase: Phase,
        epoch: int,
        device: torch.device,
        ranks: Ranks = SINGLE,
        save_batch: Callable[[int], str | None] = lambda number: None,
    ) -> None:
        self.phase = phase
        self.epoch = epoch
        self.ranks = ranks
        self.save_batch = save_batch
        self.interval = 1 if device.type == "cpu" else INTERVAL
        self.unchecked: list[StepRecord] = []

    def add(self, record: StepRecord) -> None:
        """Add a step, and check the last ones from time to time.

        Raises:
            Diverged: a loss is not finite.
        """
        self.unchecked.append(record)
        if not self.ranks.distributed and len(self.unchecked) >= self.interval:
            self.check()

    def check(self) -> None:
        """Check the steps since the last check, in all processes.

        Raises:
            Diverged: a loss is not finite.
        """
        unchecked, self.unchecked = self.unchecked, []
        finite = torch.stack([each.loss for each in unchecked]).isfinite() if unchecked else None
        own = None
        if finite is not None and not finite.all():
            own = next(
                each for each, good in zip(unchecked, finite.tolist(), strict=True) if not good
            )
        steps = self.ranks.gather(None if own is None else (own.step, own.lr, own.loss.item()))
        if not (known := [each for each in steps if each is not None]):
            return
        step, lr, loss = min(known)
        name = f"step {step} of epoch {self.epoch} of {self.phase.name}"
        message = f"the training loss became {loss} in {name}, at a learning rate of {lr:.3g}"
        saved = self.save_batch(own.batch) if own is not None and own.step == step else None
        if saved is not None:
            message = f"{message}; its batch is in {saved}"
        raise Diverged(message, self._hint())

    def check_epoch(self, images: int, train_loss: float, values: dict[str, float]) -> None:
        """Check the result of the epoch.

        Args:
            images: number of training images that were read.
            train_loss: their mean loss.
            values: of the metric of the validation split; empty without one.

        Raises:
            DataError: no image of a split can be read.
            Diverged: the training or validation loss is not finite.
        """
        for name, count in (("train", images), ("val", values.get("images", 1))):
            if not count:
                raise no_readable_image(f"the {name} split")
        for name, loss in (("training", train_loss), ("validation", values.get("loss", 0.0))):
            if not math.isfinite(loss):
                message = (
                    f"the {name} loss became {loss} in epoch {self.epoch} of {self.phase.name}"
                )
                raise Diverged(message, self._hint())

    def _hint(self) -> str:
        return f"give a lower --lr (it was {self.phase.lr:g})"


def batch_tensors(inputs: Any, targets: Tensor) -> dict[str, Tensor]:
    """Return a batch as tensors by name."""
    named = inputs if isinstance(inputs, dict) else {"inputs": inputs}
    return {**named, "targets": targets}
