"""Run all phases of a plan, and restore the best epoch."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from zoo.engine.plan.plan import LBFGS, Phase
from zoo.engine.probe.phase import MetricScore, fit_heads
from zoo.engine.runtime.distributed import SINGLE
from zoo.engine.training.loop import PhaseContext, run_phase
from zoo.engine.training.phase_data import PhaseDataFactory
from zoo.engine.training.sources import FeatureSource, ImageSource
from zoo.engine.training.state import TrainState
from zoo.engine.training.step import OnAdjustment
from zoo.events import EpochEnded, StepEnded
from zoo.models.freeze import freeze, select_modules
from zoo.models.state_dict import load_state
from zoo.tasks.base import Criterion, LogisticProbe, Metric, Ranking


def train(
    factory: PhaseDataFactory,
    state: TrainState,
    criterion: Criterion | None,
    report: Callable[[EpochEnded], None],
    on_adjustment: OnAdjustment,
    ranking: Ranking | None = None,
    stop: Callable[[EpochEnded], str | None] = lambda event: None,
    on_step: Callable[[StepEnded], None] | None = None,
) -> Metric | None:
    """Run all phases, restore the best epoch, and return its validation metric.

    Without a validation split, the last epoch is kept, and the metric is None.

    Args:
        factory: creates the source of each phase.
        state: of the training.
        criterion: the user's own loss; None for the task's.
        report: called with each epoch.
        on_adjustment: called when the micro-batch size or the precision changes.
        ranking: ranks the epochs; None for the score of the task's metric.
        stop: called with each epoch; returns why to stop the training after it, or None.
        on_step: called with each step; None without observers.

    Raises:
        Diverged: the loss is not finite.
        DataError: an image cannot be read, and bad images are errors.
    """
    network, module, best = factory.network, factory.network.module, state.best
    if isinstance(criterion, torch.nn.Module):
        criterion = criterion.to(network.device)
    for number, phase in enumerate(factory.plan.phases):
        state.start_phase(number)
        if best.tensors is not None:
            load_state(module, best.tensors, strict=False)
        freeze(module, policy=phase.policy)
        selection = select_modules(module, network.heads, phase.policy)
        names = [name for name in module.state_dict() if selection.trains(name)]
        source = factory.create(phase)
        best.extend(module, names)
        if source is not None:
            context = PhaseContext(
                seed=factory.plan.seed,
                names=names,
                progress=factory.progress.wrap,
                criterion=criterion,
                report=report,
                on_adjustment=on_adjustment,
                # Only rank 0 trains on cached features.
                ranks=factory.ranks if isinstance(source, ImageSource) else SINGLE,
                ranking=ranking,
                patience=factory.plan.patience,
                stop=stop,
                on_step=on_step,
            )
            if phase.optimizer == LBFGS and isinstance(source, FeatureSource):
                probe = network.task.probe(criterion)
                assert isinstance(probe, LogisticProbe)
                solve_phase(phase, source, state, context, probe)
            else:
                run_phase(phase, source, state, context)
        if not isinstance(source, ImageSource):
            factory.broadcast_best(best)
        state.stopped = factory.ranks.broadcast(state.stopped)
        if state.stopped is not None:
            if number + 1 < len(factory.plan.phases):
                on_adjustment("phases", number + 1, state.stopped)
            break
        state.earlier_epochs += phase.epochs
    assert best.tensors is not None
    load_state(module, best.tensors, strict=False)
    return best.metric


def solve_phase(
    phase: Phase,
    source: FeatureSource,
    state: TrainState,
    context: PhaseContext,
    probe: LogisticProbe,
) -> None:
    """Solve all heads on cached features, as one epoch.

    Args:
        phase: of the plan.
        source: of cached features.
        state: of the training, after `start_phase`.
        context: of the phase.
        probe: settings of the solver.
    """
    started = time.perf_counter()
    state.epoch = 1
    data, ranking, new_score = source.data, context.ranking, None
    if ranking is not None:
        new_score = lambda: MetricScore(source.new_metric(), ranking)  # noqa: E731
    state.probe = fit_heads(
        source.network,
        source.train,
        probe,
        data.schema.outputs,
        data.seed,
        new_score,
        data.train.groups,
    )
    metric, train_loss = source.validate(), source.evaluate(source.train).compute()["loss"]
    values = metric.compute() if metric else {}
    event = EpochEnded(
        phase=phase.name,
        epoch=1,
        epochs=1,
        lr=0.0,
        train_loss=train_loss,
        metrics=values,
        best=state.best.update(metric, values, source.module, context.names, context.ranking),
        seconds=time.perf_counter() - started,
    )
    context.report(event)
    state.stopped = context.stop(event)
