"""From options to a plan: explicit values as given, automatic ones by fixed rules.

In three steps, each value once: `resolve_settings` before the weights are loaded, so that a wrong
device or option costs no download; `resolve_recipe` with the weights; and `resolve_plan` with what
trying the network has found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from zoo.data.image_cache import bytes_needed, format_bytes, storage_location
from zoo.data.split import ImageData, Split
from zoo.engine.plan.options import Options
from zoo.engine.plan.plan import LBFGS, Plan
from zoo.engine.plan.recipes import Recipe, Resolver, fall_back_to_epochs, train_on_images
from zoo.engine.runtime.device import (
    available_cores,
    resolve_device,
    resolve_memory_format,
    resolve_precision,
)
from zoo.engine.runtime.distributed import join, own_device
from zoo.errors import UsageError
from zoo.models.base_weights import BaseWeights
from zoo.options import Augmentation, HeadSpec
from zoo.registry.licenses import classify
from zoo.spec import Backbone
from zoo.tasks.base import BaseTask

WORTH_WORKERS = 1000


def _workers(resolver: Resolver, options: Options, data: ImageData) -> int:
    images = sum(map(len, data.splits.values()))
    automatic, why = 0, "threads decode"
    # Threads cannot draw what an augmentation draws, nor read what may not bear it.
    if options.augment or not data.deterministic:
        automatic = 0 if images < WORTH_WORKERS else min(available_cores(), 8)
        why = f"{images:,} images" + (", one per core" if automatic else " are decoded in-process")
    workers: int = resolver.take("workers", options.workers, automatic, why)
    return workers


def _batch_size(resolver: Resolver, options: Options, data: ImageData) -> int:
    own = data.batch_size
    if own is not None:
        if options.batch_size not in (None, own):
            message = (
                f"--batch-size {options.batch_size}, but your DataLoader gives batches of {own}"
            )
            raise UsageError(message, "leave it out")
        why = "as your DataLoader gives"
        given: int = resolver.take("batch_size", options.batch_size, own, why)
        return given
    size: int = resolver.default("batch_size", options.batch_size, "batch_size")
    return size


def _micro_batch_size(resolver: Resolver, options: Options, batch_size: int) -> int:
    given = options.micro_batch_size
    if given is not None and given > batch_size:
        message = f"--micro-batch-size {given} is more than the batch size, {batch_size}"
        raise UsageError(message, "it is what a batch is cut into")
    size: int = resolver.take("micro_batch_size", given, batch_size, "a whole batch at once")
    return size


@dataclass(frozen=True)
class Settings:
    """The values of a plan that do not depend on the weights; each as in `Plan`."""

    head: HeadSpec
    head_at: str
    augment: Augmentation | None
    views: int
    loss: str
    batch_size: int
    micro_batch_size: int
    device: str
    processes: int
    precision: str
    memory_format: str
    seed: int
    workers: int
    bad_images: str
    val_fraction: float


@dataclass(frozen=True)
class Findings:
    """What trying a network has found to stand against a plan; None where nothing does.

    Args:
        precision: why it cannot compute in bf16.
        features: why features cannot be cached.
        probe: why its heads cannot be solved for.
    """

    precision: str | None = None
    features: str | None = None
    probe: str | None = None


def resolve_settings(
    resolver: Resolver, backbone: Backbone, options: Options, data: ImageData, task: BaseTask
) -> Settings:
    """Return what can be resolved before the weights are loaded.

    Args:
        resolver: records why.
        backbone: what is trained.
        options: already checked.
        data: the images.
        task: of the backbone.

    Raises:
        UsageError: a device, precision or batch option cannot be used.
        EnvironmentProblem: the device is not there.
    """
    device, resolver.reasons["device"] = resolve_device(options.device)
    ranks = join()
    device = own_device(device, ranks)
    resolver.reasons["processes"] = "as torchrun says" if ranks.several else "auto: no torchrun"
    precision, resolver.reasons["precision"] = resolve_precision(options.precision, device)
    memory_format, resolver.reasons["memory_format"] = resolve_memory_format(device)
    if options.cache_images and not data.deterministic:
        message = "--cache-images, but your data may give other images each time"
        raise UsageError(message, "cache them in your Dataset, where they do not change")
    batch_size = _batch_size(resolver, options, data)
    leaves = ", ".join(head.module_path for head in backbone.heads)
    augment = resolver.take("augment", options.augment, Augmentation(), "not asked for")
    named = options.loss and task.loss_name(options.loss)
    return Settings(
        head=resolver.take("head", options.head, HeadSpec(), "one new layer"),
        head_at=resolver.take("head_at", options.changes.head.at, leaves, "where the classes are"),
        augment=augment or None,
        views=resolver.take("views", options.views, 1, "not asked for"),
        loss=resolver.take("loss", named, task.loss_name(None), "default of the task"),
        batch_size=batch_size,
        micro_batch_size=_micro_batch_size(resolver, options, batch_size),
        device=str(device),
        processes=ranks.world,
        precision=precision,
        memory_format=memory_format,
        seed=resolver.default("seed", options.seed, "seed"),
        workers=_workers(resolver, options, data),
        bad_images=resolver.take(
            "bad_images", options.bad_images, "error", "no image is left out unasked"
        ),
        val_fraction=resolver.config.defaults["val_fraction"],
    )


def nondeterminism(options: Options, data: ImageData) -> str | None:
    """Return why images change from one epoch to the next; None where they do not."""
    if options.augment and not options.views:
        return "augmented images change"
    return None if data.deterministic else "your data may give other images each time"


def cached_splits(data: ImageData, augment: Augmentation | None) -> dict[str, Split]:
    """Return the splits that are read more than once and give the same images each time."""
    names = ("val",) if augment else ("train", "val")
    return {name: data.splits[name] for name in names}


def _cache_images(resolver: Resolver, options: Options, data: ImageData, base: BaseWeights) -> bool:
    if not options.cache_images:
        given: bool = resolver.take("cache_images", options.cache_images, False, "not asked for")
        return given
    splits = cached_splits(data, options.augment)
    size = bytes_needed(sum(map(len, splits.values())), base.preprocess)
    location = storage_location(size)
    why = f"as given: {' and '.join(splits)}, {format_bytes(size)} {location}"
    if "train" not in splits:
        why += "; augmented images change"
    if location is None:
        why = f"there is no room for {format_bytes(size)} of prepared images"
    resolver.reasons["cache_images"] = why
    return location is not None


def apply_findings(
    resolver: Resolver,
    options: Options,
    base: BaseWeights,
    recipe: Recipe,
    findings: Findings,
) -> Recipe:
    """Return the recipe that a network can be trained by.

    Args:
        resolver: records why.
        options: as given.
        base: the weights that training starts from.
        recipe: as asked for.
        findings: what stands against it.
    """
    conflict = findings.features or findings.probe
    if conflict is not None and any(phase.optimizer == LBFGS for phase in recipe.phases):
        recipe = fall_back_to_epochs(resolver, options, base, conflict)
    if findings.features is not None:
        recipe = train_on_images(resolver, recipe, findings.features)
    return recipe


def resolve_plan(
    resolver: Resolver,
    settings: Settings,
    recipe: Recipe,
    findings: Findings,
    backbone: Backbone,
    options: Options,
    data: ImageData,
    base: BaseWeights,
) -> Plan:
    """Return the plan of a training.

    Args:
        resolver: with the reasons so far.
        settings: from `resolve_settings`.
        recipe: from `resolve_recipe`.
        findings: what stands against them.
        backbone: what is trained.
        options: as given.
        data: the images.
        base: the weights that training starts from.
    """
    recipe = apply_findings(resolver, options, base, recipe, findings)
    if findings.precision is not None:
        settings = replace(settings, precision="fp32")
        resolver.reasons["precision"] = f"auto: {findings.precision}"
    resolver.reasons |= {
        "backbone": backbone.origin,
        "task": "of the backbone",
        "weights": base.reason,
        "license": base.license_reason,
        "preprocess": base.preprocess_reason,
        "data": data.reason,
        "classes": "as found in the data, by name"
        if data.deterministic
        else "as your data has them",
    }
    values: Mapping[str, Any] = vars(settings)
    return Plan(
        backbone=backbone.id,
        weights=base.name,
        license=base.license,
        license_kind=None if base.random else classify(base.license),
        kwargs=dict(base.kwargs),
        preprocess=base.preprocess,
        task=backbone.task,
        schema=data.schema.to_dict(),
        data={
            "name": data.name,
            "fingerprint": data.fingerprint,
            "images": {name: len(split) for name, split in data.splits.items()},
        },
        demonstration=options.data is None,
        recipe=recipe.name,
        phases=recipe.phases,
        cache_images=_cache_images(resolver, options, data, base),
        reasons=dict(resolver.reasons),
        **values,
    )
