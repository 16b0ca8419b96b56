"""Fine-tuning, in five verbs: load, set up, train, save, clean up."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from zoo.data.image_cache import KeptPictures
from zoo.engine.features.cache import FeatureLearner
from zoo.engine.plan.options import Options
from zoo.engine.plan.plan import LBFGS
from zoo.engine.plan.resolve import kept_splits
from zoo.engine.probe.phase import run_probe
from zoo.engine.run.artifacts import HISTORY, MODEL, save
from zoo.engine.run.observers import FirstBatch, Observers
from zoo.engine.run.prepare import CLAIM, Job, load
from zoo.engine.runtime.allocator import reused_memory
from zoo.engine.runtime.device import memory_errors
from zoo.engine.runtime.distributed import Ranks, join, others_ending
from zoo.engine.runtime.network import Network
from zoo.engine.training.loop import Best, Course, run_phase
from zoo.engine.training.phase_data import Learners
from zoo.engine.training.sources import PictureLearner, Pictures
from zoo.engine.training.step import Room
from zoo.errors import Busy, EnvironmentProblem, UsageError
from zoo.events import EpochEnded, FitEnded, FitFailed, FitStarted
from zoo.files import environment_problem
from zoo.models.freeze import freeze, select
from zoo.models.state_dict import load_state
from zoo.tasks.classification.metrics import Meter
from zoo.tasks.classification.outputs import Loss

__all__ = ["Job", "fit", "load"]


@dataclass
class Folder:
    """A run folder while it is ours.

    Args:
        path: the folder.
        created: folders that did not exist before, outermost first.
        claim: held for as long as the run lasts, so that two runs never write into one folder.
    """

    path: Path
    created: list[Path]
    claim: FileLock

    def give_back(self, failed: bool) -> None:
        """Let the claim go; after a failure take away what holds nothing."""
        (self.path / CLAIM).unlink(missing_ok=True)
        self.claim.release()
        for path in reversed(self.created) if failed else ():
            with suppress(OSError):
                path.rmdir()


@contextmanager
def signals_waiting() -> Iterator[None]:
    """Have what would end the process wait until a block is through."""
    if threading.current_thread() is not threading.main_thread():
        yield  # no handler runs here
        return
    arrived: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    # A mask would not do: where another thread takes the signal, the handler still runs here.
    before = {number: signal.signal(number, lambda n, _: arrived.append(n)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        for one in arrived:
            signal.raise_signal(one)


def _create(path: Path) -> list[Path]:
    """Create a folder with its parents, and return those that are new, outermost first."""
    missing = [folder for folder in (path, *path.parents) if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(exist_ok=True)
    return missing[::-1]


def _claim(path: Path, created: list[Path]) -> Folder:
    """Take a folder for this run alone.

    Raises:
        Busy: another run has it.
        UsageError: it holds something.
    """
    claim = FileLock(path / CLAIM, timeout=0)
    try:
        claim.acquire()
    except Timeout as error:
        raise Busy(f"another run is writing into {path}", "give another --out") from error
    folder = Folder(path, created, claim)
    if any(found.name != CLAIM for found in path.iterdir()):
        folder.give_back(failed=True)
        raise UsageError(f"{path} is not empty", "give a new folder; nothing is overwritten")
    return folder


def claim_folder(options: Options, name: str) -> Folder:
    """Create the run folder, as given or the first free `runs/NAME-N`, and claim it.

    Raises:
        EnvironmentProblem: the system refuses.
        Busy: another run has it.
        UsageError: it holds something.
    """
    try:
        if options.out is not None:
            return _claim(Path(options.out), _create(Path(options.out)))
        created = _create(Path("runs"))
        for number in itertools.count(1):
            folder = Path("runs") / f"{name}-{number}"
            with suppress(FileExistsError):
                folder.mkdir()
                return _claim(folder, [*created, folder])
    except OSError as error:
        raise environment_problem(error, Path(options.out or "runs")) from error
    raise AssertionError("there is always a next number")


def _loss(job: Job, device: torch.device) -> Loss:
    """Return what is minimised, on the device where it has weights of its own."""
    given = job.options.loss
    if isinstance(given, torch.nn.Module):
        return given.to(device)
    return given or torch.nn.functional.cross_entropy


def _shrink(job: Job, size: int) -> None:
    """Say and record that memory asks for smaller parts of a batch."""
    before = job.plan.micro_batch_size
    reason = f"auto: memory ran out with {before} images at once"
    job.plan = job.plan.changed(reason, micro_batch_size=size)
    job.progress.notice(
        f"memory ran out with {before} images at once; each batch of {job.plan.batch_size} now "
        f"goes through the network in parts of {size}"
    )


def _keep_pictures(job: Job) -> KeptPictures | None:
    """Return where prepared pictures are kept; without room they are decoded each time."""
    plan = job.plan
    if not plan.cache_images:
        if job.options.cache_images:
            job.progress.notice(f"--cache-images: {plan.reasons['cache_images']}")
        return None
    try:
        return KeptPictures(kept_splits(job.data, plan.augment), plan.preprocess)
    except EnvironmentProblem as error:
        job.plan = plan.changed(error.message, cache_images=False)
        job.progress.notice(f"--cache-images: {error.message}; images are decoded in every epoch")
        return None


def train(job: Job, network: Network, learners: Learners, observers: Observers) -> Meter:
    """Run every phase, restore the best epoch, and return its validation.

    Args:
        job: loaded.
        network: on its device.
        learners: make what each phase trains on.
        observers: told of each epoch.

    Raises:
        Diverged: the loss stopped being a number.
        DataError: an image cannot be read, and that is not to be skipped.
    """
    best = Best()

    def report(event: EpochEnded) -> None:
        job.history.append(event)
        job.progress.epoch(event)
        observers.tell("zoo_after_epoch", event)

    done, ranks = 0, learners.ranks
    loss = _loss(job, network.device)
    room = Room(job.plan.micro_batch_size, lambda size: _shrink(job, size))
    for number, phase in enumerate(job.plan.phases):
        if best.state is not None:
            load_state(network.module, best.state, strict=False)
        freeze(network.module, job.backbone, phase.policy)
        trained = select(network.module, job.backbone.heads, phase.policy)
        names = [name for name in network.module.state_dict() if trained.trains(name)]
        learner = learners.make(phase, number)
        phase = job.plan.phases[number]
        if best.state is not None:
            # A later phase can change more: what the best epoch so far had there is kept too.
            tensors = network.module.state_dict()
            best.state |= {
                name: tensors[name].detach().clone() for name in names if name not in best.state
            }
        if learner is not None:
            course = Course(job.plan.seed, done, names, job.progress.wrap, loss, report, room)
            if isinstance(learner, PictureLearner):
                course = replace(course, ranks=ranks)
            if phase.optimizer == LBFGS and isinstance(learner, FeatureLearner):
                weights = getattr(job.options.loss, "weight", None)
                job.probe = run_probe(phase, learner, best, names, weights, report)
            else:
                run_phase(phase, learner, best, course)
        if not isinstance(learner, PictureLearner):
            learners.share(best)
        done += phase.epochs
    assert best.state is not None
    assert best.meter is not None
    load_state(network.module, best.state, strict=False)
    return best.meter


def _run(job: Job, folder: Path, observers: Observers) -> dict[str, Any]:
    plan, ranks = job.plan, join()
    assert job.model is not None
    network = Network(
        job.model, job.backbone.heads, plan.preprocess, torch.device(plan.device), plan.precision
    )
    job.model = None
    if job.options.precision == "auto" and (reason := network.fall_back()):
        job.plan = plan = plan.changed(f"auto: {reason}", precision="fp32")
    pictures = Pictures(plan.batch_size, plan.workers, plan.bad_images, kept=_keep_pictures(job))
    place = str(folder.absolute())
    observers.tell("zoo_before_fit", FitStarted(plan.backbone, job.plan.to_dict(), place))
    first_batch = FirstBatch(observers, network.preprocess, plan.classes)
    with Learners(job, network, pictures, first_batch, ranks) as learners:
        meters = {"val": train(job, network, learners, observers)}
        if "test" in job.data.splits:
            meters["test"] = learners.test()
    metrics = {name: meter.details(plan.classes) for name, meter in meters.items()}
    bad = [item for found in ranks.gather(pictures.bad) for item in found.items()]
    job.bad = dict(sorted(bad))
    network.forwards = ranks.sum(network.forwards)
    if job.bad:
        some = ", ".join(list(job.bad)[:3]) + (", ..." if len(job.bad) > 3 else "")
        job.progress.notice(f"{len(job.bad)} images cannot be read and were left out: {some}")
    seconds = time.perf_counter() - job.began
    if ranks.rank:
        return ranks.from_first(None)
    run = save(job, network, folder, metrics, seconds)
    observers.tell("zoo_after_fit", FitEnded(plan.backbone, metrics, seconds, place))
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
            observers = Observers(job.registry.host, torch.device(job.plan.device), telling=False)
            with reused_memory(), memory_errors(f"training {job.backbone.id}"):
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
        with reused_memory(), memory_errors(f"training {job.backbone.id}"):
            run = _run(job, folder.path, observers)
    except BaseException as error:
        place = str(folder.path.absolute())
        event = FitFailed(job.backbone.id, type(error).__name__, str(error), place)
        try:
            observers.tell("zoo_on_error", event)
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
