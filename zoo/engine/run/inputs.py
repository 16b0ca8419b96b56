"""Resolve the inputs of a training: backbone, task, data and weights."""

from __future__ import annotations

from dataclasses import dataclass

from zoo.data.split import ImageData
from zoo.data.value_range import describe_ranges, measure_ranges
from zoo.engine.features.files import FeatureFiles
from zoo.engine.plan.options import (
    Options,
    check_classes,
    check_metric_names,
    check_validation,
    data_options,
    select_metric,
)
from zoo.engine.run.data_checks import check_images
from zoo.engine.run.feature_training import open_features, with_preprocess
from zoo.engine.run.folder import check_out
from zoo.engine.run.starting import resolve_start, resolve_weights
from zoo.models.base_weights import BaseWeights
from zoo.models.builder import check_trainable
from zoo.registry.registry import Registry
from zoo.spec import Backbone
from zoo.tasks.base import BaseTask, load_task, supported_options
from zoo.terminal import Progress


@dataclass(frozen=True)
class Inputs:
    """The inputs of a training, before the network is built.

    Args:
        backbone: as registered.
        described: with the build options applied.
        options: as given.
        task: of the backbone.
        data: the images.
        base: the weights, as resolved before they are loaded.
        registry: plugins and defaults.
        dry_run: do not download or write.
        own_head: whether the head is that of a model file.
        files: of features to train on; None for images.
    """

    backbone: Backbone
    described: Backbone
    options: Options
    task: BaseTask
    data: ImageData
    base: BaseWeights
    registry: Registry
    dry_run: bool
    own_head: bool
    files: FeatureFiles | None = None

    @property
    def demonstration(self) -> bool:
        """Whether the embedded data set is used, without the user's."""
        return self.options.data is None


def resolve_inputs(name: str, options: Options, registry: Registry, dry_run: bool) -> Inputs:
    """Resolve backbone and task first, then data, then weights."""
    start = resolve_start(name, options, registry)
    backbone, options = start.backbone, start.options
    task = load_task(registry.task(backbone.task))
    check_metric_names(options, task.reserved)
    select_metric(options, task)
    task.check_augmentation(options.augment or None, options.views)
    check_trainable(backbone)
    options.build_options.with_head(backbone)
    check_out(options)
    described = options.build_options.apply(backbone)
    if options.weights not in ("auto", "none") and start.own is None:
        described.find_weights(options.weights)
    defaults = registry.config.defaults
    seed = options.seed if options.seed is not None else defaults["seed"]
    val_fraction = defaults["val_fraction"] if options.val is None else options.val
    files = None
    if options.features is not None:
        options, files, data = open_features(options, task, seed, val_fraction)
    else:
        data = task.open_data(
            options.data,
            seed=seed,
            val_fraction=val_fraction,
            classes=options.classes,
            **supported_options(task, **data_options(options)),
        )
    check_classes(options, data)
    check_validation(options, data)
    check_images(options, data)
    options = options.with_criterion(task, data)
    base = resolve_weights(described, options, start, task)
    if files is not None:
        base = with_preprocess(base, files)
    else:
        base = base.with_ranges(measure_ranges(data.splits.values()))
    inputs = backbone, described, options, task, data, base, registry, dry_run, start.own_head
    return Inputs(*inputs, files)


def announce_data(inputs: Inputs, progress: Progress) -> None:
    """Print notices of the data set."""
    if inputs.demonstration:
        progress.notice(f"DEMONSTRATION: without --data, training on {inputs.data.name}")
    for notice in inputs.data.notices:
        progress.notice(f"{inputs.data.name}: {notice}")
    if ranges := inputs.base.preprocess.ranges:
        values = f"values are {describe_ranges(ranges)}, which become black and white"
        progress.notice(f"{inputs.data.name}: {values}")
