"""Select the source of each phase: images, or cached features."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from zoo.cache import trim
from zoo.data.augment import Draw
from zoo.data.split import ImageData
from zoo.engine.features.cache import FeatureCache, feature_batch
from zoo.engine.features.fingerprint import network_fingerprint
from zoo.engine.features.store import FeatureStore
from zoo.engine.plan.plan import LBFGS, Phase, Plan
from zoo.engine.plan.recipes import loop_instead
from zoo.engine.probe.phase import probe_conflict
from zoo.engine.runtime.allocator import release_memory
from zoo.engine.runtime.distributed import SINGLE, Ranks
from zoo.engine.runtime.evaluate import evaluate_split
from zoo.engine.runtime.network import Network
from zoo.engine.runtime.reader import ImageReader
from zoo.engine.training.sources import FeatureSource, ImageSource, OnFirstBatch, PhaseData
from zoo.engine.training.state import BestCheckpoint, TrainState
from zoo.models.plugin_errors import is_out_of_memory
from zoo.tasks.base import Metric, UserMetrics
from zoo.terminal import Progress


class PhaseDataFactory:
    """Creates the source of each phase; a context, in which cached features can be read.

    Args:
        plan: names what is cached; replaced where that turns out to be impossible.
        data: the splits.
        network: on its device.
        reader: of the images.
        state: of the training.
        progress: shows how features are computed.
        defaults: of `registry.toml`.
        metrics: the user's own, by name.
        on_first_batch: called with the first batch of training images; None where none listens.
        ranks: this process among those that train together. Training on cached features is so
            quick that the first does it alone; the others help to compute the features.
    """

    def __init__(
        self,
        plan: Plan,
        data: ImageData,
        network: Network,
        reader: ImageReader,
        state: TrainState,
        progress: Progress,
        defaults: Mapping[str, Any],
        metrics: UserMetrics | None = None,
        on_first_batch: OnFirstBatch | None = None,
        ranks: Ranks = SINGLE,
    ) -> None:
        self.plan = plan
        self.data = data
        self.progress = progress
        self.defaults = defaults
        self.metrics = metrics
        self.network = network
        self.reader = reader
        self.state = state
        self.on_first_batch = on_first_batch
        self.ranks = ranks
        self.cache: FeatureCache | None = None
        self.last: ImageSource | FeatureSource | None = None
        self.on_features = False
        self.batch = feature_batch(network.device)
        self._stack = ExitStack()

    def __enter__(self) -> PhaseDataFactory:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()
        store = self.cache.store if self.cache else None
        if store is not None and store.path is not None:
            limit = int(self.defaults["cache_gib"] * (1 << 30))
            for entry in trim(limit, keep=store.path):
                removed = f"{entry.images:,} images of {entry.name} were unused the longest"
                self.progress.notice(f"features of {removed} and made room; see `zoo cache`")

    def create(self, phase: Phase, number: int) -> ImageSource | FeatureSource | None:
        """Return what a phase trains on; cached features where they give the same result.

        None where another process trains it; `broadcast_best` then has the result.

        Args:
            phase: of the plan.
            number: of the phase, from 0.

        Raises:
            DataError: an image cannot be read, and bad images are errors; or not one can.
        """
        splits, plan = self.data.splits, self.plan
        data = PhaseData(
            train=splits["train"],
            val=splits["val"],
            schema=self.data.schema,
            seed=plan.seed,
            batch_size=plan.batch_size,
            augment=plan.augment,
            metrics=self.metrics,
            on_first_batch=self.on_first_batch,
            ranks=self.ranks,
        )
        self.on_features, self.last = False, None
        if phase.keep_features:
            while (shortage := self._attempt_features(data, phase, number)) is not None:
                self._halve_batch(shortage)
        if not self.on_features:
            self.last = ImageSource(self.network, data, self.reader)
        return self.last

    def _attempt_features(self, data: PhaseData, phase: Phase, number: int) -> str | None:
        """Create a source on cached features where possible; return the error of memory, if any."""
        try:
            self.on_features = self._can_cache(data, phase, number)
            self.last = self._feature_source(data) if self.on_features else None
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or self.ranks.several or self.batch == 1:
                raise
            # Not the error itself, whose frames reference the memory.
            return str(error)
        return None

    def _halve_batch(self, reason: str) -> None:
        """Compute features in batches half as large, whose rounding may differ in the last bit."""
        self._stack.close()
        self.cache = None
        release_memory(self.network.device)
        before, self.batch = self.batch, self.batch // 2
        message = f"memory ran out with {before} images at once"
        self.state.adjust("feature_batch", self.batch, message)
        self.progress.notice(
            f"{message}; features are computed in batches of {self.batch} "
            f"({reason.splitlines()[0][:80]})"
        )

    def _can_cache(self, data: PhaseData, phase: Phase, number: int) -> bool:
        """Return whether features can be cached; where not, the plan states why."""
        plan = self.plan
        cache = self.cache = self.cache or self._open()
        images = sum(map(len, self.data.splits.values())) + (plan.views - 1) * len(data.train)
        reason = None
        if not self.ranks.rank:
            reason = cache.incompatibility(data.val) or cache.storage_shortfall(images)
        reason = self.ranks.from_first(reason)
        if phase.optimizer == LBFGS:
            conflict = reason or probe_conflict(self.network)
            if conflict is not None:
                self.plan = loop_instead(plan, number, conflict, self.defaults)
        if reason is not None:
            why = f"auto: {reason}"
            self.plan = self.plan.with_phase(number, why, keep_features=False)
        return reason is None

    def _feature_source(self, data: PhaseData) -> FeatureSource | None:
        """Return a source on cached features; None in all processes but the first."""
        assert self.cache is not None
        cache, plan = self.cache, self.plan
        self._read_first_batch(data)
        draws: list[Draw | None] = [None]
        if data.augment:
            draws = [Draw(data.augment, plan.seed, epoch) for epoch in range(1, plan.views + 1)]
        train, val = cache.compute(data.train, draws), cache.compute(data.val)
        return FeatureSource(self.network, data, train, val) if train and val else None

    def broadcast_best(self, best: BestCheckpoint) -> None:
        """Give every process what the first has trained."""
        first = not self.ranks.rank
        assert not first or best.tensors is not None
        tensors = {name: tensor.cpu() for name, tensor in (best.tensors or {}).items()}
        tensors, best.score = self.ranks.from_first((tensors, best.score) if first else None)
        if not first:
            best.tensors = tensors
            best.metric = self._new_metric()

    def _new_metric(self) -> Metric:
        return self.network.task.metric(self.data.schema, self.network.device, self.metrics)

    def _open(self) -> FeatureCache:
        name, about = None, None
        if not self.ranks.rank:
            name, about = network_fingerprint(self.network, self.batch)
        store = self._stack.enter_context(FeatureStore(name, about))
        notice = self.progress.notice
        if store.problem:
            notice(f"features are kept for this run only: {store.problem}")
        if store.damaged:
            notice(f"{len(store.damaged)} damaged parts of kept features are computed again")
        wrap = self.progress.wrap
        return FeatureCache(self.network, self.reader, store, wrap, self.ranks, self.batch)

    def _read_first_batch(self, data: PhaseData) -> None:
        """Read the first batch for observers, which cached features would leave unread."""
        if data.on_first_batch is not None:
            few = range(min(len(data.train), data.batch_size))
            for batch in self.reader.read(data.train, few):
                data.on_first_batch(batch.inputs, batch.targets)

    def evaluate_test(self) -> Metric:
        """Measure the test split, as the last phase measured its own validation."""
        split = self.data.splits["test"]
        if not self.on_features:
            metric = self._new_metric()
            return evaluate_split(self.network, split, self.reader, metric, self.ranks)
        assert self.cache is not None
        features = self.cache.compute(split)
        if features is None:
            return self._new_metric()
        assert isinstance(self.last, FeatureSource)
        return self.last.evaluate(features)
