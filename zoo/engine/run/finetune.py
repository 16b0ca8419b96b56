"""Run a prepared training: train, write the run folder, clean up."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from zoo.data.image_cache import ImageCache
from zoo.engine.plan.options import select_metric
from zoo.engine.plan.plan import Plan
from zoo.engine.plan.resolve import cached_splits
from zoo.engine.run.artifacts import (
    HISTORY,
    Measured,
    held_out_temperature,
    save,
    save_unfinished,
)
from zoo.engine.run.claim import RECORD
from zoo.engine.run.data_checks import notice_skipped, notice_written
from zoo.engine.run.feature_training import train_on_features
from zoo.engine.run.folder import Folder, acquire_folder, unlink_if_possible
from zoo.engine.run.observers import SECTIONS, STEP, FirstBatch, Observers
from zoo.engine.run.prepare import Prepared
from zoo.engine.run.restore import restore
from zoo.engine.run.results import store_results
from zoo.engine.run.resume import StoredRun, as_json, stored_run
from zoo.engine.runtime.device import environment_errors
from zoo.engine.runtime.distributed import Ranks, detect_ended_processes, join
from zoo.engine.runtime.network import Network
from zoo.engine.runtime.reader import ImageReader
from zoo.engine.runtime.signals import Alarm, Interrupts, deferred_signals
from zoo.engine.training.checkpoints import (
    Cadence,
    Checkpoints,
    list_checkpoints,
    remove_checkpoints,
)
from zoo.engine.training.loop import Observer
from zoo.engine.training.phase_data import PhaseDataFactory
from zoo.engine.training.snapshot import Snapshot
from zoo.engine.training.state import TrainState
from zoo.engine.training.train import train
from zoo.errors import EnvironmentProblem, TimeLimit
from zoo.events import EpochEnded, FitEnded, FitFailed, FitStarted
from zoo.modelfile import CHECKPOINTS, MODEL
from zoo.options.arguments import name_arguments
from zoo.tasks.base import Metric

# The part of the time limit that is left for the last checkpoint, and its most in seconds.
MARGIN, LONGEST_MARGIN = 0.1, 30.0


@dataclass(frozen=True)
class Result:
    """The result of a training.

    Args:
        path: the run folder.
        record: the content of its `run.json`.
    """

    path: Path
    record: dict[str, Any]


def _open_image_cache(prepared: Prepared, state: TrainState) -> ImageCache | None:
    """Return a cache of prepared images; None if images are decoded in every epoch."""
    plan, notice = prepared.plan, prepared.progress.notice
    if not plan.cache_images:
        if prepared.options.cache_images:
            notice(f"--cache-images: {plan.reasons['cache_images']}")
        return None
    try:
        return ImageCache(cached_splits(prepared.data, plan.augment), plan.preprocess)
    except EnvironmentProblem as error:
        state.adjust("cache_images", False, error.message)
        notice(f"--cache-images: {error.message}; images are decoded in every epoch")
        return None


@dataclass(frozen=True)
class _Running:
    """A training that runs in this process.

    Args:
        prepared: from `prepare`.
        folder: the run folder.
        observers: of the training.
        interrupts: signals received.
        state: of the training, new or restored.
        snapshot: that it was restored from; None for a new training.
        reporting: whether a plugin reports on the training, in any process.
        stored: what the folder stores of it.
    """

    prepared: Prepared
    folder: Path
    observers: Observers
    interrupts: Interrupts
    state: TrainState
    snapshot: Snapshot | None
    reporting: bool
    stored: StoredRun

    @property
    def network(self) -> Network:
        """The network that is trained."""
        assert self.prepared.network is not None, "a dry run has no network"
        return self.prepared.network

    def checkpoints(self) -> Checkpoints:
        """Return the writer of its checkpoints."""
        prepared, state, network = self.prepared, self.state, self.network
        options = prepared.options
        return Checkpoints(
            self.folder / CHECKPOINTS,
            as_json(prepared.plan.to_dict()),
            state,
            network,
            Cadence(options.checkpoint_every, options.keep),
            self.interrupts,
            partial(save_unfinished, prepared, network, state, self.folder),
            prepared.started,
            self._store_again,
        )

    def _store_again(self) -> None:
        notice = "was removed or renamed during the training, and is written again"
        self.prepared.progress.notice(f"{self.folder} {notice}")
        self.stored.write(self.folder)

    def observer(self, labels: Mapping[str, str]) -> Observer:
        """Return what the engine calls: the display, the plugins, and the record of the run.

        Args:
            labels: by name of each metric to display.
        """
        state, progress, observers = self.state, self.prepared.progress, self.observers

        def report(event: EpochEnded) -> None:
            progress.epoch(event, labels)
            observers.notify("zoo_after_epoch", event)

        def adjust(name: str, value: Any, reason: str) -> None:
            state.adjust(name, value, reason)
            progress.notice(f"{reason}; {_effect(name, value, self.prepared.plan)}")

        return Observer(
            progress=progress.wrap,
            report=report,
            on_adjustment=adjust,
            stop=observers.stop_reason,
            on_step=partial(observers.notify, STEP) if observers.implements(STEP) else None,
        )


def _effect(name: str, value: Any, plan: Plan) -> str:
    """Return what an adjustment changes, for people."""
    effects = {
        "micro_batch_size": f"continuing with micro-batches of {value} of each {plan.batch_size}",
        "epochs": f"stopping after {value}",
        "phases": f"stopping after phase {value}",
    }
    return effects.get(name, f"continuing in {value}")


def _train(running: _Running, reader: ImageReader) -> dict[str, Metric]:
    """Run all phases, and return the metric of each evaluated split."""
    prepared, network, observers = running.prepared, running.network, running.observers
    data, options, task, ranks = prepared.data, prepared.options, network.task, join()
    if prepared.files is not None:
        report = running.observer(task.labels).report
        arguments = network, prepared.files, data, prepared.plan, options.workers
        return train_on_features(*arguments, running.state, report)
    ranking, labels = select_metric(options, task), task.labels
    if ranking is not None:
        labels = {**labels, ranking.name: labels.get(ranking.name, ranking.name)}
    # Several processes have to stop together.
    at_once = nullcontext if ranks.distributed else running.interrupts.at_once
    first_batch = FirstBatch(observers, network.preprocess, data.schema, at_once)
    with PhaseDataFactory(
        prepared.plan,
        data,
        network,
        reader,
        running.state,
        prepared.progress,
        int(prepared.registry.config.defaults["cache_gib"] * (1 << 30)),
        options.metrics,
        first_batch.notify if first_batch.enabled else None,
        ranks,
        running.reporting,
    ) as factory:
        val = train(
            factory,
            running.state,
            running.observer(labels),
            options.criterion,
            ranking,
            running.checkpoints(),
            running.snapshot,
        )
        metrics = {} if val is None else {"val": val}
        if "test" in data.splits:
            metrics["test"] = factory.evaluate_test()
    return metrics


def _run(
    prepared: Prepared, folder: Path, observers: Observers, interrupts: Interrupts
) -> dict[str, Any]:
    """Train, and write the run folder; return the content of `run.json`."""
    plan, network, ranks = prepared.plan, prepared.network, join()
    assert network is not None, "a dry run has no network"
    state = TrainState(plan.micro_batch_size)
    snapshot = restore(prepared, folder, state, ranks)
    begun = prepared.resumed.begun if prepared.resumed else prepared.began
    stored = stored_run(*prepared.given, plan, observers.run_id, prepared.registry, begun)
    if not ranks.rank:
        # Only now: `restore` refuses a changed plan that the checkpoint does not fit.
        stored.write(folder)
    reporting = ranks.broadcast(observers.implements(SECTIONS))
    running = _Running(prepared, folder, observers, interrupts, state, snapshot, reporting, stored)
    earlier = state.seconds
    reader = ImageReader(
        network.task.transform(plan.preprocess),
        network.device,
        plan.batch_size,
        plan.workers,
        plan.bad_images,
        bad=state.bad,
        incomplete=state.incomplete,
        cache=_open_image_cache(prepared, state),
    )
    location = str(folder.absolute())
    start = FitStarted(plan.backbone, plan.to_dict(), location, len(state.history))
    observers.notify("zoo_before_fit", start)
    stages = {"prepare": time.perf_counter() - prepared.started}
    metrics = _train(running, reader)
    stages["train"] = time.perf_counter() - prepared.started - stages["prepare"]
    reports = _reports(metrics, prepared)
    bad = dict(sorted(item for errors in ranks.gather(reader.bad) for item in errors.items()))
    network.forwards = ranks.sum(network.forwards)
    notice_skipped(prepared.data, list(bad), prepared.progress)
    seconds = earlier + time.perf_counter() - prepared.started
    if ranks.rank:
        return ranks.broadcast(None)
    notice_written(prepared.data, prepared.began, prepared.progress)
    temperature = held_out_temperature(prepared, state)
    if reporting:
        stages["report"] = store_results(prepared, folder, metrics, observers, state, temperature)
    measured = Measured(reports, bad, seconds, stages, temperature)
    record = save(prepared, network, state, folder, measured, run_id=observers.run_id)
    if not prepared.options.keep:
        remove_checkpoints(list_checkpoints(folder / CHECKPOINTS))
    observers.notify("zoo_after_fit", FitEnded(plan.backbone, reports, seconds, location))
    return ranks.broadcast(record)


def _reports(metrics: Mapping[str, Metric], prepared: Prepared) -> dict[str, Any]:
    """Return the report of each split that has a readable image; print a notice of the others."""
    reports = {name: metric.report() for name, metric in metrics.items()}
    empty = [name for name, values in reports.items() if not values["images"]]
    for name in empty if not join().rank else ():
        notice = f"no image of the {name} split can be read, so it is not evaluated"
        prepared.progress.notice(f"{prepared.data.name}: {notice}")
    return {name: values for name, values in reports.items() if name not in empty}


def fit(
    prepared: Prepared,
    announce: Callable[[Path], None] | None = None,
    command_options: str = "",
) -> Result:
    """Run a prepared training, and write its run folder.

    On any failure, folders created for it are removed if they are empty. What plugins wrote stays;
    a note of the error names it.

    Args:
        prepared: from `prepare`.
        announce: called with the run folder before training starts.
        command_options: that the command needs which resumes it.

    Raises:
        ZooError: the training failed.
    """
    ranks = join()
    with detect_ended_processes():
        if ranks.rank:
            path: Path = ranks.broadcast(None)
            device = torch.device(prepared.plan.device)
            observers = Observers(prepared.registry.host, device, ranks)
            with (
                environment_errors(f"training {prepared.backbone.id}"),
                _interrupts(prepared) as interrupts,
            ):
                return Result(path, _run(prepared, path, observers, interrupts))
        return _fit_and_write(prepared, ranks, announce, command_options)


def _interrupts(prepared: Prepared) -> Interrupts:
    """Return the receiver of signals, whose time is over before that of `--time-limit` is."""
    limit = prepared.options.time_limit
    if limit is None:
        return Interrupts()
    margin = min(limit * MARGIN, LONGEST_MARGIN)
    return Interrupts(limit - margin - (time.perf_counter() - prepared.started))


def _fit_and_write(
    prepared: Prepared,
    ranks: Ranks,
    announce: Callable[[Path], None] | None,
    command_options: str,
) -> Result:
    folder = acquire_folder(prepared.options, prepared.backbone.name)
    folder.command_options = command_options
    if folder.set_aside:
        notice = f"{folder.path}: what plugins wrote for an unfinished training is in"
        prepared.progress.notice(f"{notice} {folder.set_aside.name}")
    notes: list[str] = []
    try:
        return _fit_in(folder, prepared, ranks, announce, notes.append)
    except Alarm as error:
        message = f"the {prepared.options.time_limit:g} s of --time-limit are over"
        finished = (folder.path / RECORD).exists()
        hint = f"{folder.path} is finished" if finished else "give a longer time"
        limit = TimeLimit(message, notes[0] if notes else hint)
        for note in getattr(error, "__notes__", ()):
            limit.add_note(note)
        raise limit from error
    except BaseException as error:
        for note in notes:
            error.add_note(note)
        raise


def _fit_in(
    folder: Folder,
    prepared: Prepared,
    ranks: Ranks,
    announce: Callable[[Path], None] | None,
    keep: Callable[[str], None],
) -> Result:
    """Train in an acquired folder, and release it.

    Args:
        folder: the run folder.
        prepared: from `prepare`.
        ranks: this process.
        announce: called with the run folder before training starts.
        keep: called after a failure with what the folder keeps, if anything.
    """
    backbone, resumed = prepared.backbone, prepared.resumed
    observers = Observers(
        prepared.registry.host,
        torch.device(prepared.plan.device),
        ranks,
        prepared.registry.plugin_options,
        resumed.run_id if resumed else None,
    )
    try:
        with _interrupts(prepared) as interrupts:
            if announce:
                announce(folder.path)
            ranks.broadcast(folder.path)
            with environment_errors(f"training {backbone.id}"):
                record = _run(prepared, folder.path, observers, interrupts)
    except BaseException as error:
        name_arguments(error)  # an observer's message is that of the raised error
        location = str(folder.path.absolute())
        try:
            event = FitFailed(backbone.id, type(error).__name__, str(error), location)
            observers.notify("zoo_on_error", event)
            observers.close()
        finally:
            # A second interrupt may arrive while observers are notified, and during the cleanup.
            with deferred_signals():
                if not (folder.path / MODEL).exists():
                    unlink_if_possible(folder.path / HISTORY)
                resumable = resumed is not None or not isinstance(error, Exception)
                if note := folder.release(failed=True, resumable=resumable):
                    keep(note)
        if isinstance(error, OSError):
            raise EnvironmentProblem(f"system error: {error}") from error
        raise
    observers.close()
    folder.release(failed=False)
    return Result(folder.path, record)
