"""Run all phases of a plan, and restore the best epoch."""

from __future__ import annotations

import time

import torch

from zoo.engine.plan.plan import LBFGS, Phase
from zoo.engine.probe.growth import accuracy_by_images
from zoo.engine.probe.phase import MetricScore, fit_heads
from zoo.engine.runtime.distributed import SINGLE
from zoo.engine.runtime.network import Network
from zoo.engine.training.checkpoints import Checkpoints
from zoo.engine.training.loop import Observer, PhaseContext, run_phase
from zoo.engine.training.phase_data import PhaseDataFactory
from zoo.engine.training.snapshot import Snapshot
from zoo.engine.training.sources import FeatureSource, ImageSource
from zoo.engine.training.state import TrainState
from zoo.errors import ZooError
from zoo.events import EpochEnded
from zoo.models.freeze import freeze, select_modules
from zoo.models.state_dict import load_state
from zoo.tasks.base import Criterion, LogisticProbe, Metric, Ranking


def train(
    factory: PhaseDataFactory,
    state: TrainState,
    observer: Observer,
    criterion: Criterion | None = None,
    ranking: Ranking | None = None,
    checkpoints: Checkpoints | None = None,
    snapshot: Snapshot | None = None,
) -> Metric | None:
    """Run all phases, restore the best epoch, and return its validation metric.

    Without a validation split, the last epoch is kept, and the metric is None.

    Args:
        factory: creates the source of each phase.
        state: of the training, new or restored.
        observer: is called while it runs.
        criterion: the user's own loss; None for the task's.
        ranking: ranks the epochs; None for the score of the task's metric.
        checkpoints: of the training; None for none.
        snapshot: that network and state were restored from; None for a new training.

    Raises:
        Diverged: the loss is not finite.
        DataError: an image cannot be read, and bad images are errors.
    """
    network, module = factory.network, factory.network.module
    if isinstance(criterion, torch.nn.Module):
        criterion = criterion.to(network.device)
    first = state.phase
    for number, phase in enumerate(factory.plan.phases[first:], first):
        if snapshot is None:
            state.start_phase(number)
            _restore_best(network, state)
        names = _freeze(network, phase)
        state.trained.update(names)
        source = factory.create(phase)
        # On a resumed phase too: its policy may have been changed, to train more.
        state.best.extend(module, names)
        if source is not None:
            context = PhaseContext(
                seed=factory.plan.seed,
                names=names,
                observer=observer,
                criterion=criterion,
                # Only rank 0 trains on cached features.
                ranks=factory.ranks if isinstance(source, ImageSource) else SINGLE,
                ranking=ranking,
                patience=factory.plan.patience,
                checkpoints=checkpoints,
                snapshot=snapshot,
            )
            _train_phase(phase, source, state, context)
            last = phase is factory.plan.phases[-1] or state.stopped is not None
            if checkpoints is not None and last:
                checkpoints.finish(context.ranks)
        snapshot = None
        _synchronize(factory, source, state)
        if state.stopped is not None:
            if number + 1 < len(factory.plan.phases):
                observer.on_adjustment("phases", number + 1, state.stopped)
            break
        state.earlier_epochs += phase.epochs
    assert state.best.tensors is not None
    _restore_best(network, state)
    return state.best.metric


def _restore_best(network: Network, state: TrainState) -> None:
    """Load the best epoch into a network, if there is one."""
    if state.best.tensors is not None:
        load_state(network.module, state.best.tensors, strict=False)


def _synchronize(
    factory: PhaseDataFactory, source: ImageSource | FeatureSource | None, state: TrainState
) -> None:
    """Give all ranks the result of a phase that rank 0 trains alone, and the reason to stop."""
    if not isinstance(source, ImageSource):
        factory.broadcast_best(state.best)
    state.stopped = factory.ranks.broadcast(state.stopped)


def _freeze(network: Network, phase: Phase) -> list[str]:
    """Freeze a network for a phase, and return the entries of its state dict that it can change."""
    module = network.module
    freeze(module, policy=phase.policy)
    selection = select_modules(module, network.heads, phase.policy)
    return [name for name in module.state_dict() if selection.trains(name)]


def _train_phase(
    phase: Phase, source: ImageSource | FeatureSource, state: TrainState, context: PhaseContext
) -> None:
    """Solve a phase on cached features, or train it by epochs."""
    if phase.optimizer == LBFGS and isinstance(source, FeatureSource):
        probe = source.network.task.probe(context.criterion)
        assert isinstance(probe, LogisticProbe)
        solve_phase(phase, source, state, context, probe)
    else:
        run_phase(phase, source, state, context)


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
    state.probe, state.held_out = fit_heads(
        source.network,
        source.train,
        probe,
        data.schema.outputs,
        data.seed,
        new_score,
        data.train.groups,
    )
    if data.samples:
        state.growth = _growth(source, probe, state.probe["strength"])
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
    state.history.append(event)
    context.observer.report(event)
    state.stopped = context.observer.stop(event)


def _growth(
    source: FeatureSource, probe: LogisticProbe, strength: float
) -> list[tuple[int, tuple[float, ...]]]:
    """Return accuracies of heads fitted on fewer images; empty where that fails."""
    data, network = source.data, source.network
    if source.val is None:
        return []
    try:
        return accuracy_by_images(
            network, source.train, source.val, probe, data.schema.outputs, data.seed, strength
        )
    except (MemoryError, RuntimeError, ZooError):
        return []  # of the report only, which then has no such section
