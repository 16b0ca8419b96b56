"""Loading: the backbone looked up, the data indexed, the weights had, the plan resolved."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import nn

from zoo.data.split import ImageData
from zoo.engine.plan.options import Options, check_classes, check_metric_names
from zoo.engine.plan.plan import Plan
from zoo.engine.plan.recipes import Start
from zoo.engine.plan.resolve import resolve
from zoo.engine.runtime.distributed import Ranks, join, together
from zoo.errors import BrokenBackbone, DataError, UsageError, WeightsError
from zoo.files import environment_problem
from zoo.models.build import (
    build_network,
    build_with_base,
    check_trainable,
    is_file_choice,
    setting_of,
)
from zoo.models.build_options import changes_refused
from zoo.models.freeze import select
from zoo.models.heads import resolve_head
from zoo.models.input_size import check_size, smallest_size
from zoo.models.provenance import Base, how_made
from zoo.models.weights import where
from zoo.registry.plugins import BUILTIN
from zoo.registry.registry import Registry
from zoo.spec import Backbone
from zoo.tasks.base import BaseTask, load_task
from zoo.terminal import Progress

CLAIM = ".claim"
DEMONSTRATION_SIZES = (96, 128, 160, 192)


@dataclass
class Job:
    """A training as it goes from verb to verb."""

    backbone: Backbone
    options: Options
    registry: Registry
    progress: Progress
    data: ImageData
    plan: Plan
    task: BaseTask
    model: nn.Module | None = None
    base: Base = field(default_factory=lambda: Base("none"))
    began: float = field(default_factory=time.perf_counter)


def _ways_out(backbone: Backbone, registry: Registry, error: WeightsError) -> WeightsError:
    """Name the three ways out of weights that cannot be had."""
    installed = [
        found.id
        for name, source in registry.sources.items()
        if name not in BUILTIN  # theirs are all elsewhere, and many
        for found in map(source.get, source.names())
        if found.weights and found.weights[0].file
    ]
    named = f" ({', '.join(installed[:3])})" if installed else ""
    hint = (
        f"give --weights FILE, or --weights none, or a backbone whose weights are installed{named}"
    )
    return WeightsError(f"the weights of {backbone.id} cannot be had: {error}", hint)


def _start(backbone: Backbone, options: Options, choice: str, reason: str) -> Start:
    changes = options.changes
    setting = setting_of(changes.apply(backbone), choice, changes)
    named = {"--input-size": options.input_size, "--in-chans": options.in_chans}
    asked = [f"{name} {value}" for name, value in named.items() if value is not None]
    return Start(
        choice=setting.published.tag if setting.published else choice,
        reason=reason,
        random=choice == "none",
        kwargs=setting.kwargs,
        preprocess=setting.preprocess,
        preprocess_reason=", ".join([setting.reason, *asked]),
        license=setting.license,
    )


def _first_start(backbone: Backbone, options: Options) -> Start:
    """Return what training would start from, reaching for nothing yet."""
    if options.weights != "auto":
        return _start(backbone, options, options.weights, "as given")
    if backbone.weights:
        place = where(backbone, backbone.weights[0])
        said = {"installed": "installed", "cached": "in the cache", "download": "to be downloaded"}
        return _start(backbone, options, "auto", f"auto: the default, {said[place]}")
    if options.data is None:
        return _start(backbone, options, "none", "auto: none are published")
    message = f"no weights are published for {backbone.id}"
    raise WeightsError(message, "give --weights FILE, or --weights none, or another backbone")


def load(
    name: str, options: Options, registry: Registry, progress: Progress, dry_run: bool = False
) -> Job:
    """Look the backbone up, read the data's index, get the weights, and resolve the plan.

    Args:
        name: id, bare name or alias.
        options: what was asked for.
        registry: where to look.
        progress: told of what a person should know.
        dry_run: resolve the plan without fetching or building anything.

    Raises:
        ZooError: something named in the options cannot be used.
    """
    ranks = join()
    with together(ranks):
        job = _load(name, options, registry, progress, dry_run)
    with together(ranks):
        _check_alike(job, ranks)
    return job


def read_options(**given: Any) -> Options:
    """Make options of what was given; of several processes one alone reports what is wrong.

    Raises:
        UsageError: as `Options` does.
        TypeError: an option does not exist.
    """
    with together(join()):
        return Options(**given)


def _check_alike(job: Job, ranks: Ranks) -> None:
    """Refuse images that are others than those of the first process."""
    found = ranks.gather(job.plan.data["fingerprint"])
    if found[ranks.rank] != found[0]:
        message = f"process {ranks.rank + 1} finds other images than process 1"
        raise DataError(message, "copy the same images to each machine")


def _load(
    name: str, options: Options, registry: Registry, progress: Progress, dry_run: bool
) -> Job:
    began = time.perf_counter()
    backbone = registry.get(name)
    task = load_task(registry.task(backbone.task))
    check_metric_names(options, task.reserved)
    task.check_augmentation(options.augment, options.views)
    check_trainable(backbone)
    options.changes.placed(backbone)
    check_out(options)
    start = _first_start(backbone, options)
    seed = options.seed if options.seed is not None else registry.config.defaults["seed"]
    fraction = registry.config.defaults["val_fraction"]
    data = task.open_data(options.data, seed=seed, val_fraction=fraction, classes=options.classes)
    check_classes(options, data)
    check_pictures(options, data)
    # Once before the weights, so that a wrong device or option costs no download.
    plan = resolve(backbone, options, data, start, registry.config, task)
    job = Job(backbone, options, registry, progress, data, plan, task, began=began)
    if options.data is None:
        progress.notice(f"DEMONSTRATION: no --data was given, so this trains on {data.name}")
    for notice in data.notices:
        progress.notice(f"{data.name}: {notice}")
    if not dry_run or start.random:
        _get_weights(job, start)
    _check_policies(job)
    return job


def _check_policies(job: Job) -> None:
    """Refuse a policy that means nothing on this network, before a run folder is made.

    Patterns that turn out to name heads only are trained like the policy `head`.
    """
    policies = [phase.policy for phase in job.plan.phases]
    model, described = job.model, job.backbone
    if model is None and any(policy.kind == "modules" for policy in policies):
        model = build_network(described, job.plan.kwargs)
    elif model is not None:
        described = how_made(model).backbone
    if model is None:
        return
    heads = {resolve_head(model, head.path) for head in described.heads}
    for number, policy in enumerate(policies):
        trained = set(select(model, described.heads, policy).trained)
        still = job.plan.augment is None and job.data.deterministic
        if policy.kind == "modules" and trained == heads and still:
            reason = "auto: the patterns name nothing but heads"
            job.plan = job.plan.with_phase(number, reason, keep_features=True)


def _get_weights(job: Job, start: Start) -> None:
    """Build the network on its weights; in a demonstration, on random ones where need be."""
    backbone, options = job.backbone, job.options
    classes, seed, changes = job.data.schema.outputs, job.plan.seed, job.options.changes
    try:
        job.model, job.base = build_with_base(backbone, classes, start.choice, seed, changes)
    except BrokenBackbone as error:
        raise changes_refused(backbone, changes, error) from error
    except WeightsError as error:
        if options.weights != "auto" and is_file_choice(options.weights):
            raise
        if options.data is not None or options.weights != "auto":
            raise _ways_out(backbone, job.registry, error) from error
        start = _start(backbone, options, "none", f"auto: {error}")
        job.progress.notice(
            f"DEMONSTRATION: pretrained weights cannot be had ({error.message}); "
            f"every layer is trained from RANDOM weights, so expect little"
        )
        job.model, job.base = build_with_base(backbone, classes, "none", seed, changes)
    if options.input_size is not None:
        check_size(job.model, backbone, options.input_size)
    elif start.random and options.data is None and not backbone.fixed_size:
        size = smallest_size(job.model, start.preprocess, DEMONSTRATION_SIZES)
        start = replace(
            start,
            preprocess=replace(start.preprocess, size=size, resize=None),
            preprocess_reason=f"auto: {size} px suffice for a demonstration from random weights",
        )
    start = replace(start, license=job.base.license, untrained=job.base.untrained)
    if job.base.left_out:
        some = ", ".join(job.base.left_out)
        job.progress.notice(f"{start.choice}: left out, of another width than the heads: {some}")
    job.plan = resolve(backbone, options, job.data, start, job.registry.config, job.task)
    job.backbone = how_made(job.model).backbone


def check_pictures(options: Options, data: ImageData) -> None:
    """Refuse what cannot be done to the pictures that there are.

    Raises:
        UsageError: says what, and what to do instead.
    """
    files = data.deterministic
    if files and options.in_chans not in (None, 1, 3):
        message = f"--in-chans {options.in_chans}: image files are read as colour (3) or grey (1)"
        raise UsageError(message, "give other channels as tensors of a Dataset of your own")
    loads = [n for n, split in data.splits.items() if split.steps(1) is not None]
    if loads and join().several:
        message = f"a DataLoader (data[{loads[0]!r}]) cannot be shared out to several processes"
        raise UsageError(message, "give its Dataset")
    if loads and options.augment:
        message = f"--augment cannot change what a DataLoader gives (data[{loads[0]!r}])"
        raise UsageError(message, "change the pictures in its Dataset, or give the Dataset itself")


def check_out(options: Options) -> None:
    """Refuse a run folder that holds something.

    Raises:
        UsageError: it is a file, or a folder that is not empty.
        EnvironmentProblem: the system does not let us look.
    """
    if options.out is None:
        return
    out = Path(options.out)
    try:
        taken = out.is_file() or (out.is_dir() and any(p.name != CLAIM for p in out.iterdir()))
    except OSError as error:
        raise environment_problem(error, out) from error
    if taken:
        raise UsageError(f"--out {out} is not empty", "give a new folder; nothing is overwritten")
