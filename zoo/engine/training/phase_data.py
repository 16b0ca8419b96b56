"""What each phase of a training trains on: pictures, or features that are kept for good."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType

from zoo.cache import trim
from zoo.data.augment import Draw
from zoo.engine.features.cache import FeatureLearner, Keeper, feature_batch
from zoo.engine.features.fingerprint import identify
from zoo.engine.features.store import Shelf
from zoo.engine.plan.plan import LBFGS, Phase
from zoo.engine.plan.recipes import loop_instead
from zoo.engine.probe.phase import why_no_optimum
from zoo.engine.run.observers import FirstBatch
from zoo.engine.run.prepare import Job
from zoo.engine.runtime.allocator import make_room
from zoo.engine.runtime.distributed import ALONE, Ranks
from zoo.engine.runtime.network import Network
from zoo.engine.training.loop import Best
from zoo.engine.training.sources import PictureLearner, Pictures, Task, count
from zoo.models.plugin_errors import is_out_of_memory
from zoo.tasks.classification.metrics import Meter

Learner = PictureLearner | FeatureLearner


class Learners:
    """Makes the learner of each phase; a context, in which kept features can be read.

    Args:
        job: whose plan says what is to be kept, and is changed where that cannot be.
        network: on its device.
        pictures: how they are read.
        first_batch: shows it to observers.
        ranks: this process among those that train together. What trains on kept features is so
            quick that the first does it alone; the others help to compute the features.
    """

    def __init__(
        self,
        job: Job,
        network: Network,
        pictures: Pictures,
        first_batch: FirstBatch,
        ranks: Ranks = ALONE,
    ) -> None:
        self.job = job
        self.network = network
        self.pictures = pictures
        self.first_batch = first_batch
        self.ranks = ranks
        self.keeper: Keeper | None = None
        self.last: Learner | None = None
        self.on_features = False
        self.batch = feature_batch(network.device)
        self._stack = ExitStack()

    def __enter__(self) -> Learners:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()
        shelf = self.keeper.shelf if self.keeper else None
        if shelf is not None and shelf.path is not None:
            limit = self.job.registry.config.defaults["cache_gib"]
            for gone in trim(int(limit * (1 << 30)), keep=shelf.path):
                said = f"{gone.images:,} images of {gone.name} were unused the longest"
                self.job.progress.notice(f"features of {said} and made room; see `zoo cache`")

    def make(self, phase: Phase, number: int) -> Learner | None:
        """Return what a phase trains on; kept features where that is proven to be the same.

        None where another process trains it; `share` then has what came of it.

        Args:
            phase: of the plan.
            number: of the phase, from 0.

        Raises:
            DataError: an image cannot be read, and that is not to be skipped; or not one can.
        """
        splits, plan = self.job.data.splits, self.job.plan
        task = Task(
            train=splits["train"],
            val=splits["val"],
            classes=len(plan.classes),
            seed=plan.seed,
            batch_size=plan.batch_size,
            first=self.first_batch,
            augment=plan.augment,
            metrics=self.job.options.metrics,
            ranks=self.ranks,
        )
        self.on_features, self.last = False, None
        if phase.keep_features:
            while (short := self._try_features(task, phase, number)) is not None:
                self._halve(short)
        if not self.on_features:
            self.last = PictureLearner(self.network, task, self.pictures)
        return self.last

    def _try_features(self, task: Task, phase: Phase, number: int) -> str | None:
        """Have the features of a phase where they can be kept; say so where memory ran out."""
        try:
            self.on_features = self._can_keep(task, phase, number)
            self.last = self._features(task) if self.on_features else None
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or self.ranks.several or self.batch == 1:
                raise
            # Not the error itself, whose frames hold the memory.
            return str(error)
        return None

    def _halve(self, said: str) -> None:
        """Compute features in batches half as large, which are other features to the last bit."""
        self._stack.close()
        self.keeper = None
        make_room(self.network.device)
        before, self.batch = self.batch, self.batch // 2
        message = f"memory ran out with {before} images at once; features are computed in batches"
        self.job.progress.notice(f"{message} of {self.batch} ({said.splitlines()[0][:80]})")

    def _can_keep(self, task: Task, phase: Phase, number: int) -> bool:
        """Return whether features can be kept; where not, the plan says why."""
        plan = self.job.plan
        keeper = self.keeper = self.keeper or self._open()
        images = sum(map(len, self.job.data.splits.values())) + (plan.views - 1) * len(task.train)
        reason = None
        if not self.ranks.rank:
            reason = keeper.why_not(task.val) or keeper.no_room(images)
        reason = self.ranks.from_first(reason)
        if phase.optimizer == LBFGS:
            no_optimum = reason or why_no_optimum(self.network)
            if no_optimum is not None:
                defaults = self.job.registry.config.defaults
                self.job.plan = loop_instead(plan, number, no_optimum, defaults)
        if reason is not None:
            why = f"auto: {reason}"
            self.job.plan = self.job.plan.with_phase(number, why, keep_features=False)
        return reason is None

    def _features(self, task: Task) -> FeatureLearner | None:
        """Return a learner on kept features; None in all processes but the first."""
        assert self.keeper is not None
        keeper, plan = self.keeper, self.job.plan
        self._show_first(task)
        draws: list[Draw | None] = [None]
        if task.augment:
            draws = [Draw(task.augment, plan.seed, epoch) for epoch in range(1, plan.views + 1)]
        train, val = keeper.keep(task.train, draws), keeper.keep(task.val)
        return FeatureLearner(self.network, task, train, val) if train and val else None

    def share(self, best: Best) -> None:
        """Have every process know what the first has trained."""
        first = not self.ranks.rank
        assert not first or best.state is not None
        found = {name: tensor.cpu() for name, tensor in (best.state or {}).items()}
        state, best.score = self.ranks.from_first((found, best.score) if first else None)
        if not first:
            best.state = state
            best.meter = Meter(len(self.job.plan.classes), self.network.device)

    def _open(self) -> Keeper:
        name, about = None, None
        if not self.ranks.rank:
            name, about = identify(self.network, self.batch)
        shelf = self._stack.enter_context(Shelf(name, about))
        notice = self.job.progress.notice
        if shelf.problem:
            notice(f"features are kept for this run only: {shelf.problem}")
        if shelf.damaged:
            notice(f"{len(shelf.damaged)} damaged parts of kept features are computed again")
        wrap = self.job.progress.wrap
        return Keeper(self.network, self.pictures, shelf, wrap, self.ranks, self.batch)

    def _show_first(self, task: Task) -> None:
        """Show observers the first batch, which kept features would leave unread."""
        if self.first_batch.wanted:
            few = range(min(len(task.train), task.batch_size))
            for batch in self.pictures.read(task.train, few, self.network):
                self.first_batch.show(batch.images, batch.labels)

    def test(self) -> Meter:
        """Count the test split, as the last phase counted its own validation."""
        split, classes = self.job.data.splits["test"], len(self.job.plan.classes)
        if self.on_features:
            assert self.keeper is not None
            kept = self.keeper.keep(split)
            if kept is None:
                return Meter(classes, self.network.device)
            assert isinstance(self.last, FeatureLearner)
            return self.last.measure(kept)
        metrics = self.job.options.metrics
        return count(self.network, split, self.pictures, classes, metrics, self.ranks)
