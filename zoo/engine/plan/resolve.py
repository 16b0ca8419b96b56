"""Resolve options into a plan: explicit values as given, automatic ones by fixed rules.

Each value is resolved once, in three steps: `resolve_settings` before weights are loaded, so that
an invalid device or option costs no download; `resolve_recipe` with the weights; `resolve_plan`
with the conflicts that the check of the network reports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from zoo.data.image_cache import bytes_needed, format_bytes, storage_location
from zoo.data.split import ImageData, Split
from zoo.engine.plan.options import Options, given_data_options
from zoo.engine.plan.plan import Phase, Plan, Settings
from zoo.engine.plan.recipes import (
    Recipe,
    Resolver,
    fall_back_to_epochs,
    train_on_images,
    with_modules,
)
from zoo.engine.runtime.device import (
    available_cores,
    reader_processes,
    resolve_device,
    resolve_precision,
)
from zoo.engine.runtime.distributed import join, process_device
from zoo.engine.runtime.memory_format import resolve_memory_format
from zoo.engine.runtime.network import Network
from zoo.errors import UsageError
from zoo.models.base_weights import BaseWeights
from zoo.options import Augmentation, HeadSpec
from zoo.options.option import raise_together
from zoo.registry.licenses import classify
from zoo.spec import Backbone
from zoo.tasks.base import BaseTask
from zoo.tasks.weighted_loss import WeightedCrossEntropy

MIN_IMAGES_FOR_WORKERS = 1000
SOLVED_ANEW = "the probe solves for every row of the head; its optimum does not depend on these"


def _workers(resolver: Resolver, options: Options, data: ImageData, device: torch.device) -> int:
    images = sum(map(len, data.splits.values()))
    # The random state of augmentations and a user's Dataset need not be thread-safe.
    if options.augment or not data.deterministic:
        most = available_cores() if device.type == "cuda" else min(available_cores(), 8)
        automatic = 0 if images < MIN_IMAGES_FOR_WORKERS else most
        reason = f"{images:,} images, " + ("one per core" if automatic else "decoded in-process")
    else:
        automatic = reader_processes(device, images)
        reason = f"{images:,} images, one per core" if automatic else "threads decode"
    workers: int = resolver.resolve("workers", options.workers, automatic, reason)
    return workers


def _batch_size(resolver: Resolver, options: Options, data: ImageData) -> int:
    loader_size = data.batch_size
    if loader_size is not None:
        given = options.batch_size
        if given not in (None, loader_size):
            message = f"--batch-size {given}, but the DataLoader yields batches of {loader_size}"
            raise UsageError(message, "omit it")
        reason = "batch size of the DataLoader"
        return resolver.resolve("batch_size", given, loader_size, reason)  # type: ignore[no-any-return]
    size: int = resolver.default("batch_size", options.batch_size, "batch_size")
    return size


def _micro_batch_size(resolver: Resolver, options: Options, batch_size: int) -> int:
    given = options.micro_batch_size
    if given is not None and given > batch_size:
        message = f"--micro-batch-size {given} is more than the batch size, {batch_size}"
        raise UsageError(message, "give at most the batch size")
    size: int = resolver.resolve("micro_batch_size", given, batch_size, "the whole batch")
    return size


def _class_weights(
    resolver: Resolver, options: Options, data: ImageData
) -> Mapping[str, float] | None:
    """Return the weight of each class by name; None for equal weights."""
    given = options.class_weights
    resolver.resolve("class_weights", given, None, "off by default")
    if given is None:
        return None
    if given.weights is None:
        resolver.reasons["class_weights"] = "as given: balanced over the training split"
    assert isinstance(options.criterion, WeightedCrossEntropy)
    return dict(zip(data.classes, options.criterion.class_weights or (), strict=True))


@dataclass(frozen=True)
class Conflicts:
    """Properties of a network that conflict with a plan; None where there is no conflict.

    Args:
        precision: why it cannot compute in bf16.
        memory_format: why some layers are contiguous in a network that is channels last.
        features: why features cannot be cached.
        probe: why its heads cannot be solved by L-BFGS.
        engine: that computes its features.
        engine_reason: why that one.
    """

    precision: str | None = None
    memory_format: str | None = None
    features: str | None = None
    probe: str | None = None
    engine: str = "torch"
    engine_reason: str = "auto: no phase trains on features"


def resolve_settings(
    resolver: Resolver, backbone: Backbone, options: Options, data: ImageData, task: BaseTask
) -> Settings:
    """Resolve the values that do not depend on the weights.

    Args:
        resolver: records the reasons.
        backbone: to train.
        options: as given.
        data: the images.
        task: of the backbone.

    Raises:
        UsageError: a device, precision or batch option is invalid.
        EnvironmentProblem: the device is not available.
    """
    device, resolver.reasons["device"] = resolve_device(options.device)
    ranks = join()
    device = process_device(device, ranks)
    resolver.reasons["processes"] = (
        "set by torchrun" if ranks.distributed else "auto: not started by torchrun"
    )
    precision, resolver.reasons["precision"] = resolve_precision(options.precision, device)
    memory_format, resolver.reasons["memory_format"] = resolve_memory_format(
        options.memory_format, device
    )
    if options.cache_images and not data.deterministic:
        message = "--cache-images, but images of a Dataset may differ each time they are read"
        raise UsageError(message, "omit it, and cache in your Dataset instead")
    batch_size = _batch_size(resolver, options, data)
    leaves = ", ".join(head.module_path for head in backbone.heads)
    augment = resolver.resolve("augment", options.augment, Augmentation(), "off by default")
    loss = options.loss and task.loss_name(options.loss)
    return Settings(
        head=resolver.resolve("head", options.head, HeadSpec(), "one layer"),
        head_at=resolver.resolve(
            "head_at", options.build_options.head.at, leaves, "heads of the backbone"
        ),
        augment=augment or None,
        views=resolver.resolve("views", options.views, 1, "default"),
        loss=resolver.resolve("loss", loss, task.loss_name(None), "default of the task"),
        class_weights=_class_weights(resolver, options, data),
        label_smoothing=resolver.resolve(
            "label_smoothing", options.label_smoothing, 0.0, "off by default"
        ),
        select=resolver.resolve(
            "select", options.select, next(iter(task.directions)), "default of the task"
        ),
        patience=resolver.resolve("patience", options.patience, None, "every epoch runs"),
        batch_size=batch_size,
        micro_batch_size=_micro_batch_size(resolver, options, batch_size),
        device=str(device),
        processes=ranks.world,
        precision=precision,
        memory_format=memory_format,
        seed=resolver.default("seed", options.seed, "seed"),
        workers=_workers(resolver, options, data, device),
        bad_images=resolver.resolve("bad_images", options.bad_images, "error", "default"),
        val_fraction=resolver.default("val_fraction", options.val, "val_fraction"),
    )


def nondeterminism(options: Options, data: ImageData) -> str | None:
    """Return why images differ between epochs; None if they do not."""
    if options.augment and not options.views:
        return "augmented images differ between epochs"
    return None if data.deterministic else "images of a Dataset may differ each time"


def check_selection(options: Options, data: ImageData, recipe: Recipe) -> None:
    """Check that there are validation images for `--select` and `--patience` to rank epochs on.

    Raises:
        UsageError: there are none.
    """
    if "val" in data.splits or all(phase.solved for phase in recipe.phases):
        return
    hint = "omit it, or hold out a share by --val"
    raise_together(
        [
            UsageError(
                f"--{name} {value} ranks epochs on validation images, and there are none", hint
            )
            for name in ("select", "patience")
            if (value := getattr(options, name)) is not None
        ]
    )


def cached_splits(data: ImageData, augment: Augmentation | None) -> dict[str, Split]:
    """Return the splits that are read repeatedly and deterministically, by name."""
    names = ("val",) if augment else ("train", "val")
    return {name: data.splits[name] for name in names if name in data.splits}


def _cache_images(resolver: Resolver, options: Options, data: ImageData, base: BaseWeights) -> bool:
    if not options.cache_images:
        given: bool = resolver.resolve(
            "cache_images", options.cache_images, False, "off by default"
        )
        return given
    splits = cached_splits(data, options.augment)
    size = bytes_needed(sum(map(len, splits.values())), base.preprocess)
    location = storage_location(size)
    reason = f"as given: {' and '.join(splits)}, {format_bytes(size)} {location}"
    if "train" not in splits:
        reason += "; augmented images differ between epochs"
    if location is None:
        reason = f"neither memory nor disk has {format_bytes(size)} for prepared images"
    resolver.reasons["cache_images"] = reason
    return location is not None


def adapt_recipe(
    resolver: Resolver,
    options: Options,
    base: BaseWeights,
    recipe: Recipe,
    conflicts: Conflicts,
) -> Recipe:
    """Return the recipe adapted to the conflicts of the network.

    Args:
        resolver: records the reasons.
        options: as given.
        base: the weights that training starts from.
        recipe: from `resolve_recipe`.
        conflicts: of the network.
    """
    conflict = conflicts.features or conflicts.probe
    if conflict is not None and any(phase.solved for phase in recipe.phases):
        recipe = fall_back_to_epochs(resolver, options, base, conflict)
    if conflicts.features is not None:
        recipe = train_on_images(resolver, recipe, conflicts.features)
    return recipe


def weights_details(base: BaseWeights, phases: Sequence[Phase]) -> list[str]:
    """Return what of the weights was changed or not used, and what the recipe makes of it.

    Args:
        base: as loaded.
        phases: of the recipe.
    """
    solved = any(phase.solved for phase in phases)
    return [*base.details, *([SOLVED_ANEW] if solved and base.warm_head else [])]


def _record_reasons(
    resolver: Resolver, backbone: Backbone, base: BaseWeights, data: ImageData, recipe: Recipe
) -> None:
    """Record the reasons of values that no option sets directly."""
    resolver.reasons |= {
        "backbone": backbone.origin,
        "task": "task of the backbone",
        "weights": "; ".join([base.reason, *weights_details(base, recipe.phases)]),
        "license": base.license_reason,
        "preprocess": base.preprocess_reason,
        "data": data.reason,
        "classes": "class names of the data" if data.deterministic else "classes of the Dataset",
    }


def resolve_plan(
    resolver: Resolver,
    settings: Settings,
    recipe: Recipe,
    conflicts: Conflicts,
    backbone: Backbone,
    options: Options,
    data: ImageData,
    base: BaseWeights,
    network: Network,
) -> Plan:
    """Resolve the plan of a training.

    Args:
        resolver: with the reasons recorded so far.
        settings: from `resolve_settings`.
        recipe: from `resolve_recipe`.
        conflicts: of the network.
        backbone: to train.
        options: as given.
        data: the images.
        base: the weights that training starts from.
        network: to train.
    """
    recipe = adapt_recipe(resolver, options, base, recipe, conflicts)
    recipe = with_modules(resolver, recipe, network.module, network.heads)
    check_selection(options, data, recipe)
    if conflicts.precision is not None:
        settings = replace(settings, precision="fp32")
        resolver.reasons["precision"] = f"auto: {conflicts.precision}"
    if conflicts.memory_format is not None:
        resolver.reasons["memory_format"] += f"; {conflicts.memory_format}"
    resolver.reasons["engine"] = conflicts.engine_reason
    _record_reasons(resolver, backbone, base, data, recipe)
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
            **({"options": given} if (given := given_data_options(options)) else {}),
        },
        demonstration=options.data is None,
        recipe=recipe.name,
        phases=recipe.phases,
        engine=conflicts.engine,
        cache_images=_cache_images(resolver, options, data, base),
        reasons=dict(resolver.reasons),
        **values,
    )
