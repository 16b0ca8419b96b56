"""The loop: one phase of training, flat.

It knows neither the command line nor files. What it trains on, pictures through the whole network
or kept features through the heads, is behind `Learner`.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from zoo.engine.plan.plan import Phase
from zoo.engine.runtime.distributed import ALONE, Ranks
from zoo.engine.training.optim import make_optimizer
from zoo.engine.training.sources import PictureLearner
from zoo.engine.training.step import Room, Step
from zoo.errors import DataError, Diverged
from zoo.events import EpochEnded
from zoo.tasks.classification.metrics import Meter
from zoo.tasks.classification.outputs import Logits, Loss

Batches = Iterator[tuple[Any, Tensor]]


class Learner(Protocol):
    """What a phase trains and validates on; its inputs are its own affair."""

    module: nn.Module
    steps: int

    def train_batches(self, epoch: int) -> Batches:
        """Yield inputs and labels of an epoch, in an order that follows from seed and epoch."""
        ...

    def logits(self, inputs: Any, training: bool) -> Logits:
        """Run a batch."""
        ...

    def validate(self) -> Meter:
        """Count the validation split, in eval mode, without gradients."""
        ...


@dataclass
class Best:
    """The best epoch so far: highest top-1, then lowest loss, then earliest.

    Args:
        score: of the best epoch; None before the first.
        state: the tensors that trained, as they were then.
        meter: its validation.
    """

    score: tuple[float, float] | None = None
    state: dict[str, Tensor] | None = None
    meter: Meter | None = None

    def offer(self, meter: Meter, module: nn.Module, names: list[str]) -> bool:
        """Take an epoch if it is the best so far, and say whether it was."""
        counted = meter.summary()
        score = (counted["top1"], -counted["loss"])
        if self.score is not None and score <= self.score:
            return False
        tensors = module.state_dict()
        self.state = {name: tensors[name].detach().clone() for name in names}
        self.score, self.meter = score, meter
        return True


@dataclass(frozen=True)
class Course:
    """What a phase needs to know of the training around it.

    Args:
        seed: of all randomness; each epoch draws from a generator of its own.
        done: epochs that earlier phases ran.
        names: entries of the state dict that the phase can change.
        progress: wraps an epoch's batches to show them.
        loss: what is minimised.
        report: told of each epoch.
        room: how many images go through the network at once; None for a whole batch.
        ranks: this process among those that share each batch.
    """

    seed: int
    done: int
    names: list[str]
    progress: Callable[[Batches, int, str], Batches]
    loss: Loss
    report: Callable[[EpochEnded], None]
    room: Room | None = None
    ranks: Ranks = ALONE


def run_phase(phase: Phase, learner: Learner, best: Best, course: Course) -> None:
    """Train one phase on a learner that is frozen by its policy already, and update the best.

    Raises:
        Diverged: the loss, in training or validation, stopped being a number.
        BrokenBackbone: the network gives probabilities and not logits.
        UsageError: a loss or a metric that the user gave fails.
        DataError: not one image of a split can be read.
        EnvironmentProblem: memory runs out, however few images go through the network at once.
    """
    factor = phase.schedule
    trained = [p for p in learner.module.parameters() if p.requires_grad]
    optimizer = make_optimizer(
        phase.optimizer, trained, phase.lr, phase.momentum, phase.weight_decay
    )
    room = course.room or Room(sys.maxsize, lambda size: None)
    take_step = _step(learner, optimizer, course, room)
    for epoch in range(1, phase.epochs + 1):
        began = time.perf_counter()
        number = course.done + epoch
        torch.manual_seed(epoch_seed(course.seed, number, course.ranks.rank))
        learner.module.train()
        loss_sum, images, lr = torch.zeros((), device=trained[0].device), 0, phase.lr
        shown = f"{phase.name} {epoch}/{phase.epochs}"
        batches = course.progress(learner.train_batches(number), learner.steps, shown)
        for step, (inputs, labels) in enumerate(batches):
            # The middle of the step, so that warm-up does not begin at nought.
            share = (epoch - 1 + (step + 0.5) / learner.steps) / phase.epochs
            lr = _set_rate(optimizer, phase.lr * factor(share, epoch - 1))
            loss_sum += take_step(inputs, labels)
            images += len(labels)
        course.ranks.average(take_step.buffers)
        meter, images = learner.validate(), course.ranks.sum(images)
        losses = course.ranks.gather(loss_sum.item())
        metrics, train_loss = meter.summary(), sum(losses) / max(images, 1)
        _check(phase, epoch, images, train_loss, metrics)
        course.report(
            EpochEnded(
                phase=phase.name,
                epoch=epoch,
                epochs=phase.epochs,
                lr=lr,
                train_loss=train_loss,
                metrics=metrics,
                best=best.offer(meter, learner.module, course.names),
                seconds=time.perf_counter() - began,
            )
        )


def _step(learner: Learner, optimizer: torch.optim.Optimizer, course: Course, room: Room) -> Step:
    """Return what takes a phase's steps, alone or with other processes."""
    if not course.ranks.several:
        return Step(learner, optimizer, course.loss, course.names, room)
    from zoo.engine.training.ddp_step import SharedStep

    assert isinstance(learner, PictureLearner)
    return SharedStep(learner, optimizer, course.loss, course.names, room, course.ranks)


def _set_rate(optimizer: torch.optim.Optimizer, lr: float) -> float:
    for group in optimizer.param_groups:
        group["lr"] = lr
    return lr


def _check(
    phase: Phase, epoch: int, images: int, train_loss: float, metrics: dict[str, float]
) -> None:
    for name, count in (("train", images), ("val", metrics["images"])):
        if not count:
            raise DataError(f"no image of the {name} split can be read")
    for name, loss in (("training", train_loss), ("validation", metrics["loss"])):
        if not math.isfinite(loss):
            message = f"the {name} loss became {loss} in epoch {epoch} of {phase.name}"
            raise Diverged(message, f"give a lower --lr (it was {phase.lr:g})")


def epoch_seed(seed: int, epoch: int, rank: int = 0) -> int:
    """Return the seed of an epoch's own draws (dropout, stochastic depth), other for each rank."""
    return (seed * 1_000_003 + epoch + rank * 0x9E3779B97F4A7C15) % 2**63
