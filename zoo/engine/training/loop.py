"""The training loop of one phase, independent of the task and of the kind of input."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.engine.plan.plan import Phase
from zoo.engine.runtime.distributed import SINGLE, Ranks
from zoo.engine.training.ddp_step import DDPStep
from zoo.engine.training.optim import make_optimizer
from zoo.engine.training.sources import Batches, Source
from zoo.engine.training.state import TrainState
from zoo.engine.training.step import OnAdjustment, Step
from zoo.errors import DataError, Diverged
from zoo.events import EpochEnded, StepEnded
from zoo.seeding import epoch_seed, seed_torch
from zoo.tasks.base import Criterion, Ranking


@dataclass(frozen=True)
class PhaseContext:
    """Context of a phase in its training.

    Args:
        seed: of the training.
        names: entries of the state dict that the phase can change.
        progress: wraps the batches of an epoch to display progress.
        criterion: the user's own loss; None for the task's.
        report: called with each epoch.
        on_adjustment: called when the micro-batch size or the precision changes.
        ranks: of the processes that share each batch.
        ranking: ranks the epochs; None for the score of the task's metric.
        patience: epochs without a better one after which the phase stops; None for no limit.
        stop: called with each epoch; returns why to stop the training after it, or None.
        on_step: called with each step; None without observers, which costs nothing.
    """

    seed: int
    names: list[str]
    progress: Callable[[Batches, int, str], Batches]
    criterion: Criterion | None
    report: Callable[[EpochEnded], None]
    on_adjustment: OnAdjustment = lambda name, value, reason: None
    ranks: Ranks = SINGLE
    ranking: Ranking | None = None
    patience: int | None = None
    stop: Callable[[EpochEnded], str | None] = lambda event: None
    on_step: Callable[[StepEnded], None] | None = None


def run_phase(phase: Phase, source: Source, state: TrainState, context: PhaseContext) -> None:
    """Train one phase, on a network that is already frozen by its policy.

    Args:
        phase: of the plan.
        source: of batches.
        state: of the training, after `start_phase`.
        context: of the phase.

    Raises:
        Diverged: the training or validation loss is not finite.
        BrokenBackbone: the network's output cannot be trained on.
        UsageError: a loss or a metric of the user's fails.
        DataError: no image of a split can be read.
        EnvironmentProblem: memory runs out at the smallest micro-batch size.
    """
    module, ranks = source.module, context.ranks
    trained = [p for p in module.parameters() if p.requires_grad]
    state.optimizer = make_optimizer(
        phase.optimizer, trained, phase.lr, phase.momentum, phase.weight_decay
    )
    run_step, waited = _create_step(source, state, context), 0
    for state.epoch in range(1, phase.epochs + 1):
        started = time.perf_counter()
        seed_torch(epoch_seed(context.seed, state.total_epoch, ranks.rank))
        module.train()
        loss_sum, images, lr = _run_epoch(phase, source, state, context, run_step)
        ranks.average_buffers(run_step.buffers)
        metric, images = source.validate(), ranks.sum(images)
        values, train_loss = metric.compute() if metric else {}, _mean(loss_sum, images, ranks)
        _check(phase, state.epoch, images, train_loss, values)
        best = state.best.update(metric, values, module, context.names, context.ranking)
        event = EpochEnded(
            phase=phase.name,
            epoch=state.epoch,
            epochs=phase.epochs,
            lr=lr,
            train_loss=train_loss,
            metrics=values,
            best=best,
            seconds=time.perf_counter() - started,
        )
        context.report(event)
        state.stopped = reason = ranks.broadcast(context.stop(event))
        waited = 0 if best else waited + 1
        if reason is None and waited == context.patience:
            reason = f"no better epoch in {waited}"
        if reason is not None:
            if state.epoch < phase.epochs:
                context.on_adjustment("epochs", state.epoch, reason)
            break


def _run_epoch(
    phase: Phase, source: Source, state: TrainState, context: PhaseContext, run_step: Step
) -> tuple[Tensor, int, float]:
    """Run the steps of an epoch; return the sum of the losses, the images, and the last rate."""
    assert state.optimizer is not None
    loss_sum, images, lr = torch.zeros((), device=run_step.device), 0, phase.lr
    label = f"{phase.name} {state.epoch}/{phase.epochs}"
    batches = source.train_batches(state.total_epoch)
    for state.step, (inputs, targets) in enumerate(context.progress(batches, source.steps, label)):
        # The middle of the step, so that warm-up does not start at zero.
        progress = (state.epoch - 1 + (state.step + 0.5) / source.steps) / phase.epochs
        lr = _set_rate(state.optimizer, phase.lr * phase.schedule(progress, state.epoch - 1))
        loss = run_step(inputs, targets)
        loss_sum += loss
        images += len(targets)
        if context.on_step is not None:
            context.on_step(
                StepEnded(
                    phase=phase.name,
                    epoch=state.epoch,
                    step=state.step + 1,
                    steps=source.steps,
                    lr=lr,
                    loss=loss.item() / max(len(targets), 1),
                    images=len(targets),
                )
            )
    return loss_sum, images, lr


def _mean(loss_sum: Tensor, images: int, ranks: Ranks) -> float:
    losses: list[float] = ranks.gather(loss_sum.item())
    return sum(losses) / max(images, 1)


def _create_step(source: Source, state: TrainState, context: PhaseContext) -> Step:
    """Return the step of a phase, for one process or several."""
    if context.ranks.distributed:
        return DDPStep(
            source, state, context.criterion, context.names, context.on_adjustment, context.ranks
        )
    return Step(source, state, context.criterion, context.names, context.on_adjustment)


def _set_rate(optimizer: torch.optim.Optimizer, lr: float) -> float:
    for group in optimizer.param_groups:
        group["lr"] = lr
    return lr


def _check(
    phase: Phase, epoch: int, images: int, train_loss: float, values: dict[str, float]
) -> None:
    for name, count in (("train", images), ("val", values.get("images", 1))):
        if not count:
            raise DataError(f"no image of the {name} split can be read")
    for name, loss in (("training", train_loss), ("validation", values.get("loss", 0.0))):
        if not math.isfinite(loss):
            message = f"the {name} loss became {loss} in epoch {epoch} of {phase.name}"
            raise Diverged(message, f"give a lower --lr (it was {phase.lr:g})")
