"""Run a prepared training: train, write the run folder, clean up."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from zoo.data.image_cache import ImageCache
from zoo.data.names import relative_path
from zoo.data.scan import shorten
from zoo.engine.plan.options import select_metric
from zoo.engine.plan.resolve import cached_splits
from zoo.engine.run.artifacts import HISTORY, save
from zoo.engine.run.folder import Folder, acquire_folder, deferred_signals
from zoo.engine.run.observers import STEP, FirstBatch, Observers
from zoo.engine.run.prepare import Prepared
from zoo.engine.runtime.device import environment_errors
from zoo.engine.runtime.distributed import Ranks, detect_ended_processes, join
from zoo.engine.runtime.network import Network
from zoo.engine.runtime.reader import ImageReader
from zoo.engine.training.phase_data import PhaseDataFactory
from zoo.engine.training.state import TrainState
from zoo.engine.training.train import train
from zoo.errors import EnvironmentProblem, counted
from zoo.events import EpochEnded, FitEnded, FitFailed, FitStarted
from zoo.modelfile import MODEL
from zoo.options.arguments import name_arguments
from zoo.tasks.base import Metric


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


def _train(
    prepared: Prepared,
    state: TrainState,
    network: Network,
    reader: ImageReader,
    observers: Observers,
) -> dict[str, Metric]:
    """Run all phases, and return the metric of each evaluated split."""
    plan, data, progress = prepared.plan, prepared.data, prepared.progress
    ranking, labels = select_metric(prepared.options, network.task), network.task.labels
    if ranking is not None:
        labels = {**labels, ranking.name: labels.get(ranking.name, ranking.name)}
    first_batch = FirstBatch(observers, network.preprocess, data.schema)

    def report(event: EpochEnded) -> None:
        state.history.append(event)
        progress.epoch(event, labels)
        observers.notify("zoo_after_epoch", event)

    def adjust(name: str, value: Any, reason: str) -> None:
        state.adjust(name, value, reason)
        effect = {
            "micro_batch_size": f"continuing with micro-batches of {value} of each "
            f"{plan.batch_size}",
            "epochs": f"stopping after {value}",
            "phases": f"stopping after phase {value}",
        }.get(name, f"continuing in {value}")
        progress.notice(f"{reason}; {effect}")

    with PhaseDataFactory(
        plan,
        data,
        network,
        reader,
        state,
        progress,
        int(prepared.registry.config.defaults["cache_gib"] * (1 << 30)),
        prepared.options.metrics,
        first_batch.notify if first_batch.enabled else None,
        join(),
    ) as factory:
        criterion = prepared.options.criterion
        val = train(
            factory,
            state,
            criterion,
            report,
            adjust,
            ranking,
            observers.stop_reason,
            partial(observers.notify, STEP) if observers.implements(STEP) else None,
        )
        metrics = {} if val is None else {"val": val}
        if "test" in data.splits:
            metrics["test"] = factory.evaluate_test()
    return metrics


def _run(prepared: Prepared, folder: Path, observers: Observers) -> dict[str, Any]:
    """Train, and write the run folder; return the content of `run.json`."""
    plan, network, ranks = prepared.plan, prepared.network, join()
    assert network is not None, "a dry run has no network"
    state = TrainState(plan.micro_batch_size)
    reader = ImageReader(
        network.task.transform(plan.preprocess),
        network.device,
        plan.batch_size,
        plan.workers,
        plan.bad_images,
        cache=_open_image_cache(prepared, state),
    )
    location = str(folder.absolute())
    observers.notify("zoo_before_fit", FitStarted(plan.backbone, plan.to_dict(), location))
    metrics = _train(prepared, state, network, reader, observers)
    reports = {name: metric.report() for name, metric in metrics.items()}
    bad = dict(sorted(item for errors in ranks.gather(reader.bad) for item in errors.items()))
    network.forwards = ranks.sum(network.forwards)
    if bad:
        paths = shorten([relative_path(path, prepared.data.root) for path in bad], 3)
        skipped = counted(len(bad), "unreadable image")
        prepared.progress.notice(f"{prepared.data.name}: skipped {skipped}: {paths}")
    seconds = time.perf_counter() - prepared.started
    if ranks.rank:
        return ranks.broadcast(None)
    record = save(prepared, network, state, folder, reports, bad, seconds, run_id=observers.run_id)
    observers.notify("zoo_after_fit", FitEnded(plan.backbone, reports, seconds, location))
    return ranks.broadcast(record)


def fit(prepared: Prepared, announce: Callable[[Path], None] | None = None) -> Result:
    """Run a prepared training, and write its run folder.

    On any failure, folders created for it are removed if they are empty. What plugins wrote stays;
    a note of the error names it.

    Args:
        prepared: from `prepare`.
        announce: called with the run folder before training starts.

    Raises:
        ZooError: the training failed.
    """
    ranks = join()
    with detect_ended_processes():
        if ranks.rank:
            path: Path = ranks.broadcast(None)
            device = torch.device(prepared.plan.device)
            observers = Observers(prepared.registry.host, device, ranks)
            with environment_errors(f"training {prepared.backbone.id}"):
                return Result(path, _run(prepared, path, observers))
        return _fit_and_write(prepared, ranks, announce)


def _fit_and_write(
    prepared: Prepared, ranks: Ranks, announce: Callable[[Path], None] | None
) -> Result:
    folder = acquire_folder(prepared.options, prepared.backbone.name)
    if folder.set_aside:
        notice = f"{folder.path}: what plugins wrote for an unfinished training is in"
        prepared.progress.notice(f"{notice} {folder.set_aside.name}")
    notes: list[str] = []
    try:
        return _fit_in(folder, prepared, ranks, announce, notes.append)
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
    backbone = prepared.backbone
    observers = Observers(
        prepared.registry.host,
        torch.device(prepared.plan.device),
        ranks,
        prepared.registry.plugin_options,
    )
    try:
        if announce:
            announce(folder.path)
        ranks.broadcast(folder.path)
        with environment_errors(f"training {backbone.id}"):
            record = _run(prepared, folder.path, observers)
    except BaseException as error:
        name_arguments(error)  # an observer's message is that of the raised error
        location = str(folder.path.absolute())
        event = FitFailed(backbone.id, type(error).__name__, str(error), location)
        try:
            observers.notify("zoo_on_error", event)
            observers.close()
        finally:
            # A second interrupt may arrive while observers are notified, and during the cleanup.
            with deferred_signals():
                if not (folder.path / MODEL).exists():
                    (folder.path / HISTORY).unlink(missing_ok=True)
                if note := folder.release(failed=True):
                    keep(note)
        if isinstance(error, OSError):
            raise EnvironmentProblem(f"system error: {error}") from error
        raise
    observers.close()
    folder.release(failed=False)
    return Result(folder.path, record)
