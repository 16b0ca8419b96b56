"""Prepare a training: resolve backbone, data, weights and plan; build and check the network."""

from __future__ import annotations

import time
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import nn

from zoo.data.cropping import crop_notice
from zoo.data.split import ImageData
from zoo.data.workers import check_main_guard
from zoo.engine.features.files import FeatureFiles
from zoo.engine.plan.options import Options
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
from zoo.engine.run.building import build_network
from zoo.engine.run.data_checks import check_same_data, notice_written
from zoo.engine.run.feature_training import (
    backbone_of_features,
    check_features_of,
    with_reasons,
)
from zoo.engine.run.inputs import Inputs, announce_data, resolve_inputs
from zoo.engine.run.network_check import check_network, select_heads_only
from zoo.engine.run.resume import StoredRun, check_same_plan, resolve_engine, resolve_resume
from zoo.engine.runtime.device import environment_errors
from zoo.engine.runtime.distributed import Ranks, fail_together, join
from zoo.engine.runtime.network import Network
from zoo.errors import did_you_mean
from zoo.models.base_weights import BaseWeights
from zoo.models.provenance import provenance_of
from zoo.registry.registry import Registry
from zoo.spec import Backbone
from zoo.tasks.base import BaseTask
from zoo.terminal import Progress


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
        inputs = resolve_inputs(*given, registry, dry_run)
        options, settings = inputs.options, _resolve_settings(inputs, resolver)
    with fail_together(ranks):
        check_same_data(inputs.data, ranks)
    announce_data(inputs, progress)
    with environment_errors(f"preparing {inputs.backbone.id}"):
        model, inputs = build_network(inputs, settings, progress, ranks)
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
    _announce_plan(inputs, plan, progress)
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


def _resolve_settings(inputs: Inputs, resolver: Resolver) -> Settings:
    """Resolve settings, and reject invalid recipes before weights are downloaded."""
    options, data, task = inputs.options, inputs.data, inputs.task
    settings = resolve_settings(resolver, inputs.backbone, options, data, task)
    if inputs.own_head:
        resolver.reasons |= dict.fromkeys(("head", "head_at"), "of the model file")
    changes = nondeterminism(options, data)
    recipe = resolve_recipe(Resolver(resolver.config), options, inputs.base, changes, task)
    check_selection(options, data, recipe)
    return settings


def _announce_plan(inputs: Inputs, plan: Plan, progress: Progress) -> None:
    """Print what the plan cuts off images, and which weights it does not use."""
    if not inputs.options.crop:
        crop = crop_notice(inputs.data.splits["train"], plan.preprocess)
        if crop is not None:
            progress.notice(f"{inputs.data.name}: {crop}")
    for detail in weights_details(inputs.base, plan.phases):
        progress.notice(f"{inputs.base.path or f'weights {plan.weights}'}: {detail}")


def _check_and_resolve(
    model: nn.Module,
    inputs: Inputs,
    settings: Settings,
    resolver: Resolver,
    ranks: Ranks,
    engine: str,
) -> tuple[Network, Plan]:
    """Check a network on its device, and resolve the plan with its conflicts."""
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
        reason = "auto: it computed the features of the files"
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
