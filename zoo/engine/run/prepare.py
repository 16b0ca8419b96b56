"""Prepare a training: resolve backbone, data, weights and plan; build and check the network."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import nn

from zoo.data.cropping import crop_notice
from zoo.data.split import ImageData
from zoo.data.value_range import describe_ranges, measure_ranges
from zoo.data.workers import check_main_guard
from zoo.engine.features.files import FeatureFiles
from zoo.engine.plan.options import (
    Options,
    check_classes,
    check_metric_names,
    check_validation,
    data_options,
    select_metric,
)
from zoo.engine.plan.plan import Plan
from zoo.engine.plan.recipes import Resolver, resolve_recipe
from zoo.engine.plan.resolve import (
    Conflicts,
    Settings,
    check_selection,
    nondeterminism,
    resolve_plan,
    resolve_settings,
    weights_details,
)
from zoo.engine.run.data_checks import (
    check_images,
    check_same_data,
    check_same_weights,
    notice_written,
)
from zoo.engine.run.feature_training import (
    backbone_of_features,
    check_features_of,
    open_features,
    with_preprocess,
    with_reasons,
)
from zoo.engine.run.folder import check_out
from zoo.engine.run.network_check import check_network, select_heads_only
from zoo.engine.run.resume import StoredRun, check_same_plan, resolve_engine, resolve_resume
from zoo.engine.run.starting import resolve_start, resolve_weights
from zoo.engine.runtime.device import environment_errors
from zoo.engine.runtime.distributed import Ranks, fail_together, join
from zoo.engine.runtime.network import Network
from zoo.errors import BrokenBackbone, WeightsError, did_you_mean
from zoo.models.base_weights import BaseWeights, resolve_base
from zoo.models.build import build
from zoo.models.build_options import options_refused
from zoo.models.builder import check_trainable
from zoo.models.input_size import check_size, smallest_size
from zoo.models.provenance import provenance_of
from zoo.models.weights import NotLocal, check_reachable
from zoo.registry.discovery import BUILTIN
from zoo.registry.registry import Registry
from zoo.spec import Backbone
from zoo.tasks.base import BaseTask, load_task, supported_options
from zoo.terminal import Progress

DEMONSTRATION_SIZES = (96, 128, 160, 192)


@dataclass(frozen=True)
class Prepared:
    """A training that is ready to run.

    Args:
        backbone: as built, with its replaced heads.
        options: as given, completed by those of a model file to go on from.
        registry: plugins and defaults.
        progress: display of progress and notices.
        data: the images.
        task: of the backbone.
        base: the weights that training starts from.
        plan: of the training.
        network: on its device; None after a dry run.
        started: start of the preparation, by `time.perf_counter`.
        given: name of the backbone, and options, both as given.
        resumed: the training to resume; None for a new one.
        files: of features to train on; None for images.
    """

    backbone: Backbone
    options: Options
    registry: Registry
    progress: Progress
    data: ImageData
    task: BaseTask
    base: BaseWeights
    plan: Plan
    network: Network | None
    started: float
    given: tuple[str, Options]
    resumed: StoredRun | None = None
    files: FeatureFiles | None = None

    @property
    def began(self) -> int:
        """When the preparation started, in nanoseconds since the epoch."""
        return time.time_ns() - round((time.perf_counter() - self.started) * 1e9)


@dataclass(frozen=True)
class _Inputs:
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
        """Whether the embedded data set is used, for want of the user's."""
        return self.options.data is None


def prepare(
    name: str | None,
    options: Options,
    registry: Registry,
    progress: Progress,
    dry_run: bool = False,
) -> Prepared:
    """Resolve backbone and data, load the weights, check the network, resolve the plan.

    Args:
        name: id, bare name or alias; or the path of a model file or run folder to go on from; None
            for that of a training to resume.
        options: as given.
        registry: plugins and defaults.
        progress: receives notices.
        dry_run: do not download or write. If weights are not local, the network is checked on
            random ones.

    Raises:
        ZooError: an option cannot be used.
    """
    started = time.perf_counter()
    check_main_guard(options.workers or 0)
    _ = registry.plugin_options  # an invalid one is an error before anything is trained
    ranks, resolver = join(), Resolver(registry.config)
    with fail_together(ranks):
        if name is None and options.resume is None:
            name = backbone_of_features(options)
        given, resumed = resolve_resume(name, options)
    with fail_together(ranks):
        inputs = _resolve_inputs(*given, registry, dry_run)
        options = inputs.options
        settings = resolve_settings(resolver, inputs.backbone, options, inputs.data, inputs.task)
        if inputs.own_head:
            resolver.reasons |= dict.fromkeys(("head", "head_at"), "of the model file")
        # Reject invalid recipes before weights are downloaded.
        changes = nondeterminism(options, inputs.data)
        recipe = resolve_recipe(
            Resolver(registry.config), options, inputs.base, changes, inputs.task
        )
        check_selection(options, inputs.data, recipe)
    with fail_together(ranks):
        check_same_data(inputs.data, ranks)
    _announce_data(inputs, progress)
    with environment_errors(f"preparing {inputs.backbone.id}"):
        model, inputs = _build(inputs, settings, progress, ranks)
        engine = resolve_engine(options, resumed)
        network, plan = _check_and_resolve(model, inputs, settings, resolver, ranks, engine)
    if inputs.files is not None:
        check_features_of(network, inputs.files, dry_run)
        plan = with_reasons(plan, inputs.files, given[1])
    if resumed is not None:
        with fail_together(ranks):
            check_same_plan(resumed, plan, options, progress)
        if resumed.begun is not None:
            notice_written(inputs.data, resumed.begun, progress)
    crop = crop_notice(inputs.data.splits["train"], plan.preprocess) if not options.crop else None
    if crop is not None:
        progress.notice(f"{inputs.data.name}: {crop}")
    for detail in weights_details(inputs.base, plan.phases):
        progress.notice(f"{inputs.base.path or f'weights {plan.weights}'}: {detail}")
    return Prepared(
        backbone=provenance_of(model).backbone,
        options=options,
        registry=registry,
        progress=progress,
        data=inputs.data,
        task=inputs.task,
        base=inputs.base,
        plan=plan,
        network=None if dry_run else network,
        started=started,
        given=given,
        resumed=resumed,
        files=inputs.files,
    )


def _check_and_resolve(
    model: nn.Module,
    inputs: _Inputs,
    settings: Settings,
    resolver: Resolver,
    ranks: Ranks,
    engine: str,
) -> tuple[Network, Plan]:
    """Check a network on its device, and resolve the plan with the conflicts found."""
    options, data, base, task = inputs.options, inputs.data, inputs.base, inputs.task
    heads = provenance_of(model).backbone.heads
    with fail_together(ranks):
        heads_only = select_heads_only(model, heads, options.train)
        changes = nondeterminism(options, data)
        recipe = resolve_recipe(resolver, options, base, changes, task, heads_only)
        device, automatic = torch.device(settings.device), options.precision == "auto"
        network = Network(
            model,
            heads,
            base.preprocess,
            device,
            settings.precision,
            task,
            automatic,
            settings.memory_format,
        )
    if inputs.files is None:
        conflicts = check_network(network, data, settings, recipe, ranks, inputs.dry_run, engine)
    else:
        reason = "auto: the features of the files are its"
        conflicts = Conflicts(engine=inputs.files.engine(engine), engine_reason=reason)
    plan = resolve_plan(
        resolver, settings, recipe, conflicts, inputs.backbone, options, data, base, network
    )
    return network, plan


def read_options(**given: Any) -> Options:
    """Return options of keyword arguments; of several processes, only one reports errors.

    Raises:
        UsageError: as `Options` does.
        TypeError: an option does not exist.
    """
    known = [field.name for field in fields(Options) if field.init]
    for name in given.keys() - set(known):
        raise TypeError(f"no option is named {name!r}; {did_you_mean(name, known, 'see its help')}")
    with fail_together(join()):
        return Options(**given)


def _resolve_inputs(name: str, options: Options, registry: Registry, dry_run: bool) -> _Inputs:
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
    return _Inputs(*inputs, files)


def _announce_data(inputs: _Inputs, progress: Progress) -> None:
    if inputs.demonstration:
        progress.notice(f"DEMONSTRATION: without --data, training on {inputs.data.name}")
    for notice in inputs.data.notices:
        progress.notice(f"{inputs.data.name}: {notice}")
    if ranges := inputs.base.preprocess.ranges:
        values = f"values are {describe_ranges(ranges)}, which become black and white"
        progress.notice(f"{inputs.data.name}: {values}")


def _build(
    inputs: _Inputs, settings: Settings, progress: Progress, ranks: Ranks
) -> tuple[nn.Module, _Inputs]:
    """Build the network on its weights; in a demonstration, fall back to random ones.

    Returns:
        The network, and the inputs with the weights as loaded.
    """
    with fail_together(ranks):
        model, failure = _build_on_weights(inputs, settings)
    # If one process cannot load the weights, none uses them.
    with fail_together(ranks):
        failure = next(filter(None, ranks.gather(failure)), None)
    with fail_together(ranks):
        if failure is not None:
            random = resolve_base(inputs.described, "none", inputs.options.build_options)
            inputs = replace(inputs, base=replace(random, reason=f"auto: {failure}"))
            progress.notice(
                f"DEMONSTRATION: pretrained weights are not available ({failure}); "
                f"all layers train from RANDOM weights, so expect a low accuracy"
            )
            model, _ = _build_on_weights(inputs, settings)
        assert model is not None
        loaded = provenance_of(model).base
        if loaded.kind == inputs.base.kind:
            inputs = replace(inputs, base=loaded)
        inputs = replace(inputs, base=_fit_input_size(inputs, model))
    with fail_together(ranks):
        check_same_weights(inputs.base, ranks)
    return model, inputs


def _build_on_weights(inputs: _Inputs, settings: Settings) -> tuple[nn.Module | None, str | None]:
    """Build the network; in a demonstration, return why weights are not available instead."""
    described, options, base = inputs.described, inputs.options, inputs.base
    schema, head, seed = inputs.data.schema, options.build_options.head, settings.seed
    arguments = schema.outputs, seed, head, inputs.dry_run, schema.output_names
    try:
        try:
            return build(described, base, *arguments), None
        except NotLocal:
            if inputs.demonstration and options.weights == "auto" and base.published:
                check_reachable(described, base.published)
            # Neither structure nor precision depends on the values of the weights.
            random = replace(base, kind="none", license=None)
            return build(described, random, *arguments), None
    except BrokenBackbone as error:
        raise options_refused(inputs.backbone, options.build_options, error) from error
    except WeightsError as error:
        if base.kind == "file":
            raise
        if options.data is not None or options.weights != "auto":
            raise _unavailable(inputs.backbone, inputs.registry, error) from error
        return None, error.message


def _fit_input_size(inputs: _Inputs, model: nn.Module) -> BaseWeights:
    """Check the given input size; in a demonstration on random weights, choose a small one.

    Returns:
        The weights, with the preprocess of the training.
    """
    base, options = inputs.base, inputs.options
    if options.input_size is not None:
        check_size(model, inputs.backbone, options.input_size)
    elif base.random and inputs.demonstration and not inputs.backbone.fixed_size:
        size = smallest_size(model, base.preprocess, DEMONSTRATION_SIZES)
        return replace(
            base,
            preprocess=replace(base.preprocess, size=size, resize=None),
            preprocess_reason=f"auto: {size} px, for a demonstration on random weights",
        )
    return base


def _unavailable(backbone: Backbone, registry: Registry, error: WeightsError) -> WeightsError:
    """Return an error for unavailable weights whose hint lists the alternatives."""
    installed = [
        other.id
        for name, source in registry.sources.items()
        if name not in BUILTIN  # none of these install weights
        for other in map(source.get, source.names())
        if other.weights and other.weights[0].file
    ]
    names = f" ({', '.join(installed[:3])})" if installed else ""
    hint = f"give --weights FILE, or --weights none, or a backbone with installed weights{names}"
    hint = f"{hint}, or {error.hint}" if error.hint else hint
    return WeightsError(f"the weights of {backbone.id} are not available: {error.message}", hint)
