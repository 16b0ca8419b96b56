"""Restore a training from its newest checkpoint."""

from __future__ import annotations

from pathlib import Path

from zoo.engine.run.prepare import Prepared
from zoo.engine.run.resume import differences, is_longer
from zoo.engine.runtime.distributed import Ranks, fail_together
from zoo.engine.training.checkpoints import newest_checkpoint
from zoo.engine.training.snapshot import Snapshot
from zoo.engine.training.state import TrainState
from zoo.errors import UsageError, WeightsError, counted, one_line
from zoo.modelfile import CHECKPOINTS

# Values of a plan that decide which epoch is the best.
RANKED = ("select", "data.", "schema.", "loss", "val_fraction", "preprocess.")


def restore(prepared: Prepared, folder: Path, state: TrainState, ranks: Ranks) -> Snapshot | None:
    """Restore network and state from the newest checkpoint of a training to resume.

    Returns:
        The snapshot; None if there is none, or a new training.

    Raises:
        WeightsError: all checkpoints are damaged, or the newest does not fit the network.
        UsageError: the plan has no phase to go on with.
    """
    network, plan = prepared.network, prepared.plan
    if prepared.resumed is None or network is None:
        return None
    with fail_together(ranks):
        snapshot = None
        if not ranks.rank:
            snapshot = newest_checkpoint(folder / CHECKPOINTS, prepared.progress.notice)
    snapshot = ranks.broadcast(snapshot)
    if snapshot is None:
        prepared.progress.notice(f"{folder} has no checkpoint: training from the start")
        return None
    metric = network.task.metric(prepared.data.schema, network.device, prepared.options.metrics)
    with fail_together(ranks):
        try:
            snapshot.restore(state, network, metric, ranks.rank)
        except (KeyError, RuntimeError, TypeError, ValueError, IndexError) as error:
            message = f"the newest checkpoint of {folder} does not fit: {one_line(error)}"
            raise WeightsError(message, "train anew, in another folder") from error
    snapshot = _fit_to_plan(prepared, state, snapshot, ranks)
    if state.adjusted("precision", plan.precision) != plan.precision:
        network.leave_bf16()
    step = f"step {state.step} of " if state.step else ""
    done = f"{step}epoch {state.epoch} of {plan.phases[state.phase].name}"
    prepared.progress.notice(f"resuming {folder} after {done}")
    return snapshot


def _fit_to_plan(
    prepared: Prepared, state: TrainState, snapshot: Snapshot, ranks: Ranks
) -> Snapshot:
    """Discard what a changed plan makes invalid of a restored state; return what is left.

    Raises:
        UsageError: the plan has no phase to go on with.
    """
    # Not the plan of the folder: after a change, that may be newer than the checkpoint.
    plan, before = prepared.plan, snapshot.plain["plan"]
    if state.phase >= len(plan.phases):
        count = counted(len(plan.phases), "phase")
        message = f"--resume {prepared.options.resume}: it is in phase {state.phase + 1} of its"
        raise UsageError(f"{message} recipe, and this one has {count}", "give its own recipe")
    changed = differences(before, plan)
    if changed or len(snapshot.plain["ranks"]) != ranks.world:
        state.restart_epoch()
    if any(key.startswith(RANKED) for key in changed):
        state.best.score = None
    phase = f"phases.{state.phase}"
    if changed.keys() & {f"{phase}.optimizer", f"{phase}.policy"}:
        snapshot = snapshot.without_optimizer()
    if changed.keys() & {"batch_size", "micro_batch_size"}:
        state.micro_batch_size = plan.micro_batch_size
    if is_longer(before, plan):
        state.ended, state.stopped = False, None
    return snapshot
