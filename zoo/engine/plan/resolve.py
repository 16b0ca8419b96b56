"""From options to a plan: explicit values as given, automatic ones by fixed rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from zoo.data.image_cache import bytes_needed, in_words, where_kept
from zoo.data.split import ImageData, Split
from zoo.engine.plan.options import Options
from zoo.engine.plan.plan import Plan
from zoo.engine.plan.recipes import Values, choose_recipe, phases_of
from zoo.engine.runtime.device import (
    available_cores,
    resolve_device,
    resolve_memory_format,
    resolve_precision,
)
from zoo.engine.runtime.distributed import join, own_device
from zoo.errors import UsageError
from zoo.models.base_weights import BaseWeights
from zoo.options import Augmentation, HeadSpec, Policy
from zoo.options.policy import HEAD
from zoo.registry.config import Config
from zoo.registry.licenses import classify
from zoo.spec import Backbone
from zoo.tasks.base import BaseTask

WORTH_WORKERS = 1000


def _workers(values: Values, options: Options, data: ImageData) -> int:
    images = sum(map(len, data.splits.values()))
    automatic, why = 0, "threads of this process read"
    # Threads cannot draw what an augmentation draws, nor read what may not bear it.
    if options.augment or not data.deterministic:
        automatic = 0 if images < WORTH_WORKERS else min(available_cores(), 8)
        why = f"{images:,} images" + (", one per core" if automatic else " are read in-process")
    workers: int = values.take("workers", options.workers, automatic, why)
    return workers


def _batch_size(values: Values, options: Options, data: ImageData) -> int:
    own = data.batch_size
    if own is not None:
        if options.batch_size not in (None, own):
            message = (
                f"--batch-size {options.batch_size}, but your DataLoader gives batches of {own}"
            )
            raise UsageError(message, "leave it out")
        given: int = values.take("batch_size", options.batch_size, own, "as your DataLoader gives")
        return given
    size: int = values.default("batch_size", options.batch_size, "batch_size")
    return size


def _micro_batch_size(values: Values, options: Options, batch_size: int) -> int:
    given = options.micro_batch_size
    if given is not None and given > batch_size:
        message = f"--micro-batch-size {given} is more than the batch size, {batch_size}"
        raise UsageError(message, "it is what a batch is cut into")
    size: int = values.take("micro_batch_size", given, batch_size, "a whole batch at once")
    return size


def _cache_images(values: Values, options: Options, data: ImageData, start: BaseWeights) -> bool:
    if not options.cache_images:
        given: bool = values.take("cache_images", options.cache_images, False, "not asked for")
        return given
    if not data.deterministic:
        message = "--cache-images, but your data may give other pictures each time"
        raise UsageError(message, "keep them in your Dataset, where they do not change")
    splits = kept_splits(data, options.augment)
    size = bytes_needed(sum(map(len, splits.values())), start.preprocess)
    place = where_kept(size)
    named = " and ".join(splits)
    why = f"as given: {named}, {in_words(size)} {place}"
    if "train" not in splits:
        why += "; augmented images change"
    if place is None:
        why = f"there is no room for {in_words(size)} of prepared images"
    values.reasons["cache_images"] = why
    return place is not None


def kept_splits(data: ImageData, augment: Augmentation | None) -> dict[str, Split]:
    """Return the splits that are read more than once and give the same pictures each time."""
    names = ("val",) if augment else ("train", "val")
    return {name: data.splits[name] for name in names}


def resolve(
    backbone: Backbone,
    options: Options,
    data: ImageData,
    start: BaseWeights,
    config: Config,
    task: BaseTask,
) -> Plan:
    """Return the plan of a training.

    Args:
        backbone: what is trained.
        options: already checked.
        data: the images.
        start: the weights.
        config: defaults.
        task: of the backbone.

    Raises:
        UsageError: a device, precision or phase option is unknown.
        EnvironmentProblem: the device is not there.
    """
    values = Values(config)
    device, values.reasons["device"] = resolve_device(options.device)
    ranks = join()
    device = own_device(device, ranks)
    values.reasons["processes"] = "as torchrun says" if ranks.several else "auto: no torchrun"
    precision, values.reasons["precision"] = resolve_precision(options.precision, device)
    memory_format, values.reasons["memory_format"] = resolve_memory_format(device)
    changing = _changing(options, data)
    recipe, policies = choose_recipe(values, options, start, changing, task)
    images = {name: len(split) for name, split in data.splits.items()}
    new, leaves = options.changes.head, ", ".join(head.module_path for head in backbone.heads)
    values.reasons |= {
        "backbone": backbone.origin,
        "weights": start.reason,
        "license": start.license_reason,
        "preprocess": start.preprocess_reason,
        "data": data.reason,
        "classes": "as found in the data, by name"
        if data.deterministic
        else "as your data has them",
    }
    plan = Plan(
        backbone=backbone.id,
        weights=start.name,
        license=start.license,
        license_kind=None if start.random else classify(start.license),
        kwargs=dict(start.kwargs),
        preprocess=start.preprocess,
        task=backbone.task,
        schema=data.schema.to_dict(),
        data={"name": data.name, "fingerprint": data.fingerprint, "images": images},
        demonstration=options.data is None,
        recipe=recipe,
        head=values.take("head", options.head, HeadSpec(), "one new layer"),
        head_at=values.take("head_at", new.at, leaves, "where the classes come from"),
        augment=_augment(values, options),
        loss=values.take(
            "loss", options.loss and task.loss_name(options.loss), task.loss_name(None), "usual"
        ),
        views=_views(values, options, policies),
        phases=phases_of(values, options, recipe, policies, start, changing),
        batch_size=(batch_size := _batch_size(values, options, data)),
        micro_batch_size=_micro_batch_size(values, options, batch_size),
        device=str(device),
        processes=ranks.world,
        precision=precision,
        memory_format=memory_format,
        seed=values.default("seed", options.seed, "seed"),
        workers=_workers(values, options, data),
        cache_images=_cache_images(values, options, data, start),
        bad_images=values.take(
            "bad_images", options.bad_images, "error", "nothing is left out unasked"
        ),
        val_fraction=config.defaults["val_fraction"],
    )
    return replace(plan, reasons=values.reasons)


def _augment(values: Values, options: Options) -> Augmentation | None:
    taken: Augmentation = values.take("augment", options.augment, Augmentation(), "not asked for")
    return taken or None


def _views(values: Values, options: Options, policies: Sequence[Policy]) -> int:
    if options.views is not None and any(policy != HEAD for policy in policies):
        message = "--views is for training heads alone: elsewhere features change"
        raise UsageError(message, "leave it out, or give --recipe probe or head")
    views: int = values.take("views", options.views, 1, "images are seen as they are")
    return views


def _changing(options: Options, data: ImageData) -> str | None:
    """Say why pictures change from one epoch to the next; None where they do not."""
    if options.augment and not options.views:
        return "augmented images change"
    return None if data.deterministic else "your data may give other pictures each time"
