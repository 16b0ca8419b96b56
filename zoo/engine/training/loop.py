"""The training loop of one phase, independent of the task and of the kind of input."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.engine.plan.plan import Phase
from zoo.engine.runtime.distributed import SINGLE, Ranks
from zoo.engine.training.checkpoints import Checkpoints, deferring_signals, interruptible
from zoo.engine.training.ddp_step import DDPStep
from zoo.engine.training.divergence import DivergenceCheck, StepRecord, batch_tensors
from zoo.engine.training.optim import make_optimizer
from zoo.engine.training.snapshot import Snapshot
from zoo.engine.training.sources import Batches, Source
from zoo.engine.training.state import TrainState
from zoo.engine.training.step import OnAdjustment, Step
from zoo.events import EpochEnded, StepEnded
from zoo.seeding import epoch_seed, seed_torch
from zoo.tasks.base import Criterion, Ranking


@dataclass(frozen=True)
class Observer:
    """What a training calls while it runs.

    Args:
        progress: wraps the batches of an epoch to display progress.
        report: called with each epoch.
        on_adjustment: called when a value of the plan changes.
        stop: called with each epoch; returns why to stop the training after it, or None.
        on_step: called with each step; None without observers, which costs nothing.
    """

    progress: Callable[[Batches, int, str], Batches] = lambda batches, steps, label: batches
    report: Callable[[EpochEnded], None] = lambda event: None
    on_adjustment: OnAdjustment = lambda name, value, reason: None
    stop: Callable[[EpochEnded], str | None] = lambda event: None
    on_step: Callable[[StepEnded], None] | None = None


@dataclass(frozen=True)
class PhaseContext:
    """Context of a phase in its training.

    Args:
        seed: of the training.
        names: entries of the state dict that the phase can change.
        observer: is called while it runs.
        criterion: the user's own loss; None for the task's.
        ranks: of the processes that share each batch.
        ranking: ranks the epochs; None for the score of the task's metric.
        patience: epochs without a better one after which the phase stops; None for no limit.
        checkpoints: of the training; None for none.
        snapshot: to continue from, restored but for optimizer and generators; None for a new phase.
    """

    seed: int
    names: list[str]
    observer: Observer = Observer()
    criterion: Criterion | None = None
    ranks: Ranks = SINGLE
    ranking: Ranking | None = None
    patience: int | None = None
    checkpoints: Checkpoints | None = None
    snapshot: Snapshot | None = None


def run_phase(phase: Phase, source: Source, state: TrainState, context: PhaseContext) -> None:
    """Train one phase, on a network that is already frozen by its policy.

    Args:
        phase: of the plan.
        source: of batches.
        state: of the training, after `start_phase` or restored.
        context: of the phase.

    Raises:
        Diverged: the training or validation loss is not finite.
        BrokenBackbone: the network's output cannot be trained on.
        UsageError: a loss or a metric of the user's fails.
        DataError: no image of a split can be read.
        EnvironmentProblem: memory runs out at the smallest micro-batch size.
    """
    trained = [p for p in source.module.parameters() if p.requires_grad]
    state.optimizer = make_optimizer(
        phase.optimizer, trained, phase.lr, phase.momentum, phase.weight_decay
    )
    snapshot = context.snapshot
    if snapshot is not None:
        snapshot.restore_optimizer(state.optimizer)
    run_step = _create_step(source, state, context)
    with deferring_signals(context.checkpoints):
        while not state.ended and (state.step or state.epoch < phase.epochs):
            _run_epoch(phase, source, state, context, run_step, snapshot)
            snapshot = None


def _run_epoch(
    phase: Phase,
    source: Source,
    state: TrainState,
    context: PhaseContext,
    run_step: Step,
    snapshot: Snapshot | None,
) -> None:
    """Run the steps of an epoch that are left, and validate."""
    started = time.perf_counter()
    module, ranks = source.module, context.ranks
    if not state.step:
        state.start_epoch(run_step.device)
        snapshot = None  # its random generators are those of an earlier epoch
    seed_torch(epoch_seed(context.seed, state.total_epoch, ranks.rank))
    module.train()
    check = _divergence_check(phase, source, state, context)
    lr = _run_steps(phase, source, state, context, run_step, check, snapshot)
    ranks.average_buffers(run_step.buffers)
    with interruptible(context.checkpoints, ranks):
        metric = source.validate()
    images = ranks.sum(state.images)
    train_loss = _mean(state.loss_sum, images, ranks)
    values = metric.compute() if metric else {}
    check.check_epoch(images, train_loss, values)
    event = EpochEnded(
        phase=phase.name,
        epoch=state.epoch,
        epochs=phase.epochs,
        lr=lr,
        train_loss=train_loss,
        metrics=values,
        best=state.best.update(metric, values, module, context.names, context.ranking),
        seconds=time.perf_counter() - started,
    )
    _end_epoch(event, state, context)


def _end_epoch(event: EpochEnded, state: TrainState, context: PhaseContext) -> None:
    """Report an epoch, decide whether the phase goes on, and write a checkpoint."""
    observer, ranks = context.observer, context.ranks
    state.history.append(event)
    state.waited = 0 if event.best else state.waited + 1
    state.end_epoch()
    # Before the observers, who may be interrupted: a training resumed there ends here too.
    state.ended = context.patience is not None and state.waited >= context.patience
    with interruptible(context.checkpoints, ranks):
        observer.report(event)
        stop = observer.stop(event)
    state.stopped = reason = ranks.broadcast(stop)
    if reason is None and state.ended:
        reason = f"no better epoch in {state.waited}"
    if reason is not None:
        state.ended = True
        if state.epoch < event.epochs:
            observer.on_adjustment("epochs", state.epoch, reason)
    if context.checkpoints is not None:
        context.checkpoints.after_epoch(ranks)


def _run_steps(
    phase: Phase,
    source: Source,
    state: TrainState,
    context: PhaseContext,
    run_step: Step,
    check: DivergenceCheck,
    snapshot: Snapshot | None,
) -> float:
    """Run the steps of an epoch that are left, and return the last learning rate."""
    assert state.optimizer is not None
    observer, lr = context.observer, _rate(phase, state, source, max(state.step - 1, 0))
    label = f"{phase.name} {state.epoch}/{phase.epochs}"
    batches = source.train_batches(state.total_epoch, state.batches)
    for number, inputs, targets in observer.progress(batches, source.steps, label):
        if snapshot is not None and number >= state.batches:
            # Only now: a user's DataLoader draws its order when its first batch is requested.
            snapshot.restore_generators(run_step.device, context.ranks.rank)
            snapshot = None
        if number <= state.batches:
            continue  # of a user's DataLoader, which cannot start in the middle
        lr = _set_rate(state.optimizer, _rate(phase, state, source, state.step))
        loss = run_step(inputs, targets)
        state.loss_sum += loss
        state.images += len(targets)
        state.step, state.batches = state.step + 1, number
        check.add(StepRecord(state.step, number, lr, loss))
        if observer.on_step is not None:
            event = StepEnded(
                phase=phase.name,
                epoch=state.epoch,
                step=state.step,
                steps=source.steps,
                lr=lr,
                loss=loss.item() / max(len(targets), 1),
                images=len(targets),
            )
            with interruptible(context.checkpoints, context.ranks):
                observer.on_step(event)
        if context.checkpoints is not None:
            context.checkpoints.after_step(context.ranks, check.check)
    check.check()
    return lr


def _divergence_check(
    phase: Phase, source: Source, state: TrainState, context: PhaseContext
) -> DivergenceCheck:
    """Return the check of an epoch's losses."""
    epoch, checkpoints = state.total_epoch, context.checkpoints

    def save_batch(number: int) -> str | None:
        if checkpoints is None:
            return None
        for position, inputs, targets in source.train_batches(epoch, number - 1):
            if position == number:
                return checkpoints.save_batch(batch_tensors(inputs, targets))
        return None

    device = source.network.device
    return DivergenceCheck(phase, state.epoch, device, context.ranks, save_batch)


def _mean(loss_sum: Tensor, images: int, ranks: Ranks) -> float:
    losses: list[float] = ranks.gather(loss_sum.item())
    return sum(losses) / max(images, 1)


def _create_step(source: Source, state: TrainState, context: PhaseContext) -> Step:
    """Return the step of a phase, for one process or several."""
    if context.ranks.distributed:
        return DDPStep(
            source,
            state,
            context.criterion,
            context.names,
            context.observer.on_adjustment,
            context.ranks,
        )
    return Step(source, state, context.criterion, context.names, context.observer.on_adjustment)


def _rate(phase: Phase, state: TrainState, source: Source, step: int) -> float:
    """Return the learning rate of a step of the epoch, counted from 0."""
    # The middle of the step, so that warm-up does not start at zero.
    progress = (state.epoch - 1 + (step + 0.5) / source.steps) / phase.epochs
    return phase.lr * phase.schedule(progress, state.epoch - 1)


def _set_rate(optimizer: torch.optim.Optimizer, lr: float) -> float:
    for group in optimizer.param_groups:
        group["lr"] = lr
    return lr
