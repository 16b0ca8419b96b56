"""Select the source of each phase: images, or cached features."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

from zoo.cache import trim
from zoo.data.augment import Draw
from zoo.data.split import ImageData, Split
from zoo.engine.features.cache import FeatureCache, FeatureSet, feature_batch
from zoo.engine.features.fingerprint import network_fingerprint
from zoo.engine.features.near_duplicates import describe_near_duplicates, similar_images
from zoo.engine.features.store import FeatureStore
from zoo.engine.plan.plan import Phase, Plan
from zoo.engine.runtime.allocator import release_memory
from zoo.engine.runtime.distributed import SINGLE, Ranks
from zoo.engine.runtime.evaluate import evaluate_split
from zoo.engine.runtime.network import Network
from zoo.engine.runtime.reader import ImageReader
from zoo.engine.training.image_check import ImageCheck
from zoo.engine.training.sources import FeatureSource, ImageSource, OnFirstBatch, PhaseData
from zoo.engine.training.state import BestCheckpoint, TrainState
from zoo.errors import counted
from zoo.models.plugin_errors import is_out_of_memory
from zoo.tasks.base import Metric, UserMetrics
from zoo.terminal import Progress

# Pairs of similar images that are recorded for the report.
MAX_SIMILAR = 12


class PhaseDataFactory:
    """Creates the source of each phase; a context manager that owns the feature store.

    Args:
        plan: of the training.
        data: the splits.
        network: on its device.
        reader: of the images.
        state: of the training.
        progress: display of progress and notices.
        cache_bytes: limit of all cached features, in bytes.
        metrics: the user's own, by name.
        on_first_batch: called with the first batch of training images; None without observers.
        ranks: of the processes that train together. All of them compute features; training on
            features is so fast that rank 0 does it alone.
        samples: whether the results of each sample of `val` and `test` are recorded.
    """

    def __init__(
        self,
        plan: Plan,
        data: ImageData,
        network: Network,
        reader: ImageReader,
        state: TrainState,
        progress: Progress,
        cache_bytes: int,
        metrics: UserMetrics | None = None,
        on_first_batch: OnFirstBatch | None = None,
        ranks: Ranks = SINGLE,
        samples: bool = False,
    ) -> None:
        self.samples = samples
        self.plan = plan
        self.data = data
        self.progress = progress
        self.cache_bytes = cache_bytes
        self.metrics = metrics
        self.network = network
        self.reader = reader
        self.state = state
        self.on_first_batch = on_first_batch
        self.ranks = ranks
        self.cache: FeatureCache | None = None
        self.last: ImageSource | FeatureSource | None = None
        self.on_features = False
        self.batch = state.adjusted("feature_batch", feature_batch(network.device))
        # A restored state has been checked.
        self.check = ImageCheck(data, reader, progress, ranks)
        self.checked = state.duplicates is not None
        self._stack = ExitStack()

    def __enter__(self) -> PhaseDataFactory:
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()
        store = self.cache.store if self.cache else None
        if store is not None and store.path is not None:
            for entry in trim(self.cache_bytes, keep=store.path):
                images = "" if entry.images is None else f" ({counted(entry.images, 'image')})"
                removed = f"{entry.kind} of {entry.name}{images}, the least recently used"
                self.progress.notice(f"removed {removed} in the cache; see `zoo cache`")

    def create(self, phase: Phase) -> ImageSource | FeatureSource | None:
        """Return the source of a phase: images, or cached features, by the plan.

        None if only rank 0 trains it; `broadcast_best` then distributes the result.

        Args:
            phase: of the plan.

        Raises:
            DataError: images cannot be read and bad images are errors, or no image can be read.
        """
        splits, plan = self.data.splits, self.plan
        data = PhaseData(
            train=splits["train"],
            val=splits.get("val"),
            schema=self.data.schema,
            seed=plan.seed,
            batch_size=plan.batch_size,
            augment=plan.augment,
            metrics=self.metrics,
            on_first_batch=self.on_first_batch,
            ranks=self.ranks,
            samples=self.samples,
        )
        self.on_features, self.last = phase.keep_features, None
        first, self.checked = not self.checked, True
        if first:
            covered = self._feature_splits(phase)
            self.check.read([name for name in splits if name not in covered])
        if phase.keep_features:
            while (shortage := self._attempt_features(phase, data)) is not None:
                self._halve_batch(shortage)
        else:
            self.check.raise_unreadable()
            self.network.engines.clear()  # the body changes
            self.last = ImageSource(self.network, data, self.reader)
        if first and (duplicates := self.check.report()) is not None:
            self.state.duplicates = duplicates.to_dict()
        return self.last

    def _feature_splits(self, phase: Phase) -> set[str]:
        """Return the splits whose features a phase computes: `test` for the last phase only."""
        if not phase.keep_features:
            return set()
        names = {"train", "val", "test"} if phase is self.plan.phases[-1] else {"train", "val"}
        return names & set(self.data.splits)

    def _attempt_features(self, phase: Phase, data: PhaseData) -> str | None:
        """Create a source on cached features; return the error message if memory ran out."""
        try:
            self.last = self._feature_source(phase, data)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error) or self.ranks.distributed or self.batch == 1:
                raise
            # Not the error itself, whose frames reference the memory.
            return str(error)
        return None

    def _halve_batch(self, reason: str) -> None:
        """Halve the batch size of feature computation, which may change the rounding."""
        self._stack.close()
        self.cache = None
        self.network.engines.clear()
        release_memory(self.network.device)
        before, self.batch = self.batch, self.batch // 2
        message = f"memory ran out with batches of {counted(before, 'image')}"
        self.state.adjust("feature_batch", self.batch, message)
        self.progress.notice(
            f"{message}; features are computed in batches of {self.batch} "
            f"({reason.splitlines()[0][:80]})"
        )

    def _feature_source(self, phase: Phase, data: PhaseData) -> FeatureSource | None:
        """Return a source on cached features; None in all processes but rank 0."""
        cache, plan = self.cache or self._open(), self.plan
        self.cache = cache
        self._read_first_batch(data)
        draws: list[Draw | None] = [None]
        if data.augment:
            draws = [Draw(data.augment, plan.seed, epoch) for epoch in range(1, plan.views + 1)]
        splits = self.data.splits
        requests: list[tuple[Split, list[Draw | None]]] = [(data.train, draws)]
        further = [name for name in ("val", "test") if name in self._feature_splits(phase)]
        requests += [(splits[name], [None]) for name in further]
        rows = cache.rows(requests, sum(map(len, splits.values())))
        self.check.digests |= cache.digests
        self._record_spill(cache)
        if self.ranks.rank:
            return None
        train, *others = [
            cache.feature_set(split, each) for (split, _), each in zip(requests, rows, strict=True)
        ]
        self._report_near_duplicates([split for split, _ in requests], [train, *others])
        return FeatureSource(self.network, data, train, others[0] if data.val is not None else None)

    def _report_near_duplicates(self, splits: list[Split], features: list[FeatureSet]) -> None:
        """Report images that look like one of the training split, where weights are trained."""
        if self.plan.weights == "none" or not self.data.deterministic:
            return
        for split, each in zip(splits[1:], features[1:], strict=True):
            pair = (splits[0], features[0]), (split, each)
            similar = similar_images(*pair, self.network.paths[0])
            self.state.similar[split.name] = similar[:MAX_SIMILAR]
            root = self.data.root
            notice = describe_near_duplicates(*pair, self.network.paths[0], root, similar)
            if notice is not None:
                self.progress.notice(f"{self.data.name}: {notice}")

    def broadcast_best(self, best: BestCheckpoint) -> None:
        """Broadcast the best checkpoint from rank 0."""
        first = not self.ranks.rank
        assert not first or best.tensors is not None
        tensors = {name: tensor.cpu() for name, tensor in (best.tensors or {}).items()}
        tensors, best.score = self.ranks.broadcast((tensors, best.score) if first else None)
        if not first:
            best.tensors = tensors
            best.metric = self._new_metric() if "val" in self.data.splits else None

    def _new_metric(self) -> Metric:
        return self.network.task.metric(self.data.schema, self.network.device, self.metrics)

    def _open(self) -> FeatureCache:
        name, about = None, None
        if not self.ranks.rank:
            name, about = network_fingerprint(self.network, self.batch, self.plan.engine)
        store = self._stack.enter_context(FeatureStore(name, about))
        notice = self.progress.notice
        if store.damaged:
            parts = counted(len(store.damaged), "damaged part")
            notice(f"recomputing {parts} of the cached features")
        wrap = self.progress.wrap
        cache = FeatureCache(
            self.network, self.reader, store, wrap, self.ranks, self.batch, self.plan.engine
        )
        splits, views = self.data.splits, self.plan.views
        images = sum(map(len, splits.values())) + (views - 1) * len(splits["train"])
        if store.path is not None and (shortfall := cache.disk_shortfall(images)) is not None:
            store.spill_to_memory(shortfall)
        self._record_spill(cache)
        return cache

    def _record_spill(self, cache: FeatureCache) -> None:
        """Record, once, that features are in memory because the disk cannot store them."""
        problem = cache.store.problem
        if problem is None or any(each.name == "feature_store" for each in self.state.adjustments):
            return
        self.state.adjust("feature_store", "memory", problem)
        self.progress.notice(f"features are cached for this run only: {problem}")

    def _read_first_batch(self, data: PhaseData) -> None:
        """Read the first batch for observers, since cached features need no images.

        The pass that computes features names all images that cannot be read.
        """
        if data.on_first_batch is not None:
            reader = replace(self.reader, bad_images="skip")
            for batch in reader.read(data.train, range(min(len(data.train), data.batch_size))):
                data.on_first_batch(batch.inputs, batch.targets)

    def evaluate_test(self) -> Metric:
        """Evaluate the test split on the source of the last phase."""
        split = self.data.splits["test"]
        if not self.on_features:
            metric = self._new_metric()
            if isinstance(self.last, ImageSource):
                metric = self.last.data.record_samples(metric, split)
            return evaluate_split(self.network, split, self.reader, metric, self.ranks)
        assert self.cache is not None
        features = self.cache.compute(split)
        if features is None:
            return self._new_metric()
        assert isinstance(self.last, FeatureSource)
        return self.last.evaluate(features, split)
