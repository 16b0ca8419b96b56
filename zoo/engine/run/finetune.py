"""Fine-tuning: prepare, train, write the run folder, clean up."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from zoo.data.image_cache import ImageCache
from zoo.engine.plan.resolve import kept_splits
from zoo.engine.run.artifacts import HISTORY, MODEL, save
from zoo.engine.run.folder import claim_folder, signals_waiting
from zoo.engine.run.observers import FirstBatch, Observers
from zoo.engine.run.prepare import Job, load
from zoo.engine.runtime.device import memory_errors
from zoo.engine.runtime.distributed import Ranks, join, others_ending
from zoo.engine.runtime.network import Network
from zoo.engine.runtime.reader import ImageReader
from zoo.engine.training.phase_data import PhaseDataFactory
from zoo.engine.training.state import TrainState
from zoo.engine.training.train import train
from zoo.errors import EnvironmentProblem
from zoo.events import EpochEnded, FitEnded, FitFailed, FitStarted

__all__ = ["Job", "fit", "load"]


def _keep_pictures(job: Job) -> ImageCache | None:
    """Return where prepared pictures are kept; without room they are decoded each time."""
    plan = job.plan
    if not plan.cache_images:
        if job.options.cache_images:
            job.progress.notice(f"--cache-images: {plan.reasons['cache_images']}")
        return None
    try:
        return ImageCache(kept_splits(job.data, plan.augment), plan.preprocess)
    except EnvironmentProblem as error:
        job.plan = plan.changed(error.message, cache_images=False)
        job.progress.notice(f"--cache-images: {error.message}; images are decoded in every epoch")
        return None


def _run(job: Job, folder: Path, observers: Observers) -> dict[str, Any]:
    plan, ranks, task = job.plan, join(), job.task
    assert job.model is not None
    device = torch.device(plan.device)
    network = Network(job.model, job.backbone.heads, plan.preprocess, device, plan.precision, task)
    job.model = None
    if job.options.precision == "auto" and (reason := network.fall_back()):
        job.plan = plan = plan.changed(f"auto: {reason}", precision="fp32")
    reader = ImageReader(
        task.transform(plan.preprocess),
        device,
        plan.batch_size,
        plan.workers,
        plan.bad_images,
        cache=_keep_pictures(job),
    )
    location = str(folder.absolute())
    observers.notify("zoo_before_fit", FitStarted(plan.backbone, job.plan.to_dict(), location))
    first_batch = FirstBatch(observers, network.preprocess, job.data.schema)
    state = TrainState(plan.micro_batch_size)

    def report(event: EpochEnded) -> None:
        state.history.append(event)
        job.progress.epoch(event, task.labels)
        observers.notify("zoo_after_epoch", event)

    def shrink(size: int) -> None:
        before = state.micro_batch_size
        message = f"memory ran out with {before} images at once"
        state.adjust("micro_batch_size", size, message)
        job.progress.notice(
            f"{message}; each batch of {plan.batch_size} now goes through the network in parts of "
            f"{size}"
        )

    with PhaseDataFactory(
        job.plan,
        job.data,
        network,
        reader,
        state,
        job.progress,
        job.registry.config.defaults,
        job.options.metrics,
        first_batch.show if first_batch.wanted else None,
        ranks,
    ) as factory:
        metrics = {"val": train(factory, state, job.options.loss, report, shrink)}
        job.plan = factory.plan
        if "test" in job.data.splits:
            metrics["test"] = factory.evaluate_test()
    reports = {name: metric.report() for name, metric in metrics.items()}
    bad = dict(sorted(item for found in ranks.gather(reader.bad) for item in found.items()))
    network.forwards = ranks.sum(network.forwards)
    if bad:
        some = ", ".join(list(bad)[:3]) + (", ..." if len(bad) > 3 else "")
        job.progress.notice(f"{len(bad)} images cannot be read and were left out: {some}")
    seconds = time.perf_counter() - job.began
    if ranks.rank:
        return ranks.from_first(None)
    run = save(job, network, state, folder, reports, bad, seconds)
    observers.notify("zoo_after_fit", FitEnded(plan.backbone, reports, seconds, location))
    return ranks.from_first(run)


def fit(job: Job, announce: Callable[[Path], None] | None = None) -> tuple[Path, dict[str, Any]]:
    """Train a loaded job, write its run folder, and return the folder and `run.json`.

    Whatever stops it, folders that were made for it and hold nothing are taken away again.

    Args:
        job: from `load`.
        announce: told of the run folder before training starts.

    Raises:
        ZooError: training cannot go on.
    """
    ranks = join()
    with others_ending():
        if ranks.rank:
            path: Path = ranks.from_first(None)
            observers = Observers(job.registry.host, torch.device(job.plan.device), enabled=False)
            with memory_errors(f"training {job.backbone.id}"):
                return path, _run(job, path, observers)
        return _fit_and_write(job, ranks, announce)


def _fit_and_write(
    job: Job, ranks: Ranks, announce: Callable[[Path], None] | None
) -> tuple[Path, dict[str, Any]]:
    folder = claim_folder(job.options, job.backbone.name)
    observers = Observers(job.registry.host, torch.device(job.plan.device))
    try:
        if announce:
            announce(folder.path)
        ranks.from_first(folder.path)
        with memory_errors(f"training {job.backbone.id}"):
            run = _run(job, folder.path, observers)
    except BaseException as error:
        place = str(folder.path.absolute())
        event = FitFailed(job.backbone.id, type(error).__name__, str(error), place)
        try:
            observers.notify("zoo_on_error", event)
            observers.close()
        finally:
            # An interrupt may arrive while observers are told of another, and while this is done.
            with signals_waiting():
                if not (folder.path / MODEL).exists():
                    (folder.path / HISTORY).unlink(missing_ok=True)
                folder.give_back(failed=True)
        if isinstance(error, OSError):
            raise EnvironmentProblem(f"the system refuses: {error}") from error
        raise
    observers.close()
    folder.give_back(failed=False)
    return folder.path, run
