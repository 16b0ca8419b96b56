"""From options to a plan: explicit values as given, automatic ones by fixed rules."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zoo.config import Config
from zoo.data.augment import parse_augment
from zoo.data.split import ImageData
from zoo.engine.device import resolve_device, resolve_precision
from zoo.engine.options import OPTIMIZER, RECIPES, Options, name_of, several
from zoo.engine.plan import Phase, Plan
from zoo.errors import UsageError
from zoo.licenses import classify
from zoo.spec import Backbone, Preprocess

SGD_FACTOR = 10.0
LATER_FACTOR = 0.1
WORTH_WORKERS = 1000


@dataclass(frozen=True)
class Start:
    """What a training starts from, decided before the plan.

    Args:
        choice: for building: `none`, a published tag, or a file.
        reason: why this one.
        random: whether the weights are random.
        kwargs: builder arguments.
        preprocess: of these weights.
        preprocess_reason: why this one.
        untrained: layers below the head that the weights have no values for.
        license: of the weights; None where it is not stated.
    """

    choice: str
    reason: str
    random: bool
    kwargs: Mapping[str, Any]
    preprocess: Preprocess
    preprocess_reason: str = "of these weights"
    untrained: tuple[str, ...] = ()
    license: str | None = None


class _Values:
    """Collects values with their reasons."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.reasons: dict[str, str] = {}

    def take(self, name: str, given: Any, automatic: Any, reason: str) -> Any:
        """Return what was given, or else the automatic value, and note why."""
        self.reasons[name] = "as given" if given is not None else f"auto: {reason}"
        return automatic if given is None else given

    def default(self, name: str, given: Any, key: str) -> Any:
        """Return what was given, or else the default of `registry.toml`, and note why."""
        file = Path(self.config.origins.get(f"defaults.{key}", "registry.toml")).name
        return self.take(name, given, self.config.defaults[key], f"{key} in {file}")


def _phase(
    values: _Values,
    options: Options,
    number: int,
    policy: str,
    start: Start,
    changing: str | None,
) -> Phase:
    kind = "head" if policy == "head" else "random" if start.random else "tune" if number else "all"
    where = f"phases.{number}."
    epochs, rates = several(options.epochs), several(options.lr)
    for name, given in (("epochs", epochs), ("lr", rates)):
        if given and len(given) > 1 and number >= len(given):
            raise UsageError(f"--{name} has {len(given)} values, one for each phase is needed")
    optimizer = values.take(f"{where}optimizer", options.optimizer, OPTIMIZER, "needs least tuning")
    if rates and len(rates) == 1 and number > 0:
        lower = rates[0] * LATER_FACTOR
        lr = values.take(f"{where}lr", None, lower, "a tenth of --lr, to fine-tune")
    else:
        lr = values.default(f"{where}lr", rates[number] if rates else None, f"{kind}_lr")
        if rates is None and optimizer == "sgd":
            lr *= SGD_FACTOR
            values.reasons[f"{where}lr"] += ", times 10 for sgd"
    keep = policy == "head" and changing is None
    values.reasons[f"{where}keep_features"] = "auto: " + (
        "only heads train, on images that do not change"
        if keep
        else (changing if policy == "head" and changing else "features change")
    )
    return Phase(
        name=policy,
        policy=policy,
        epochs=values.default(
            f"{where}epochs",
            epochs[min(number, len(epochs) - 1)] if epochs else None,
            f"{kind}_epochs",
        ),
        optimizer=optimizer,
        lr=float(lr),
        momentum=float(values.default(f"{where}momentum", options.momentum, "momentum")),
        weight_decay=float(
            values.default(f"{where}weight_decay", options.weight_decay, "weight_decay")
        ),
        schedule=values.take(
            f"{where}schedule", options.schedule, "cosine:0.1", "no length to choose"
        ),
        keep_features=keep,
    )


def _phases(
    values: _Values,
    options: Options,
    recipe: str,
    policies: Sequence[str],
    start: Start,
    changing: str | None,
) -> tuple[Phase, ...]:
    values.reasons |= {f"phases.{n}.policy": f"of {recipe}" for n in range(len(policies))}
    for name, given in (("epochs", options.epochs), ("lr", options.lr)):
        values_given = several(given)
        if values_given and len(values_given) > len(policies):
            message = (
                f"--{name} has {len(values_given)} values, but {recipe} has {len(policies)} phase"
            )
            raise UsageError(message + "s" * (len(policies) > 1))
    return tuple(_phase(values, options, n, p, start, changing) for n, p in enumerate(policies))


def _workers(values: _Values, options: Options, images: int) -> int:
    automatic = 0 if images < WORTH_WORKERS else min(_cores(), 8)
    how = ", one per core" if automatic else " are read in-process"
    workers: int = values.take("workers", options.workers, automatic, f"{images:,} images{how}")
    return workers


def _batch_size(values: _Values, options: Options, data: ImageData) -> int:
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


def _policies(values: _Values, options: Options, start: Start) -> tuple[str, tuple[str, ...]]:
    if options.train is not None:
        values.reasons["recipe"] = "as given by --train"
        return options.train, (options.train,)
    reason = "trained features serve as they are"
    if start.random:
        reason = "random features are not worth freezing"
    elif start.untrained:
        reason = f"the weights have no values for {', '.join(start.untrained)}"
    automatic = "all" if start.random or start.untrained else "head"
    recipe = values.take("recipe", options.recipe, automatic, reason)
    return recipe, RECIPES[recipe]


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def resolve(
    backbone: Backbone, options: Options, data: ImageData, start: Start, config: Config
) -> Plan:
    """Return the plan of a training.

    Args:
        backbone: what is trained.
        options: already checked.
        data: the images.
        start: the weights.
        config: defaults.

    Raises:
        UsageError: a device, precision or phase option is unknown.
        EnvironmentProblem: the device is not there.
    """
    values = _Values(config)
    device, values.reasons["device"] = resolve_device(options.device)
    precision, values.reasons["precision"] = resolve_precision(options.precision, device)
    recipe, policies = _policies(values, options, start)
    images = {name: len(split) for name, split in data.splits.items()}
    new, leaves = options.changes.head, ", ".join(head.module_path for head in backbone.heads)
    values.reasons |= {
        "backbone": backbone.origin,
        "weights": start.reason,
        "license": _why_license(start),
        "preprocess": start.preprocess_reason,
        "data": data.reason,
        "classes": "as found in the data, by name" if data.still else "as your data has them",
    }
    plan = Plan(
        backbone=backbone.id,
        weights=Path(start.choice).name,
        license=start.license,
        license_kind=None if start.random else classify(start.license),
        kwargs=dict(start.kwargs),
        preprocess=start.preprocess,
        classes=data.classes,
        data={"name": data.name, "fingerprint": data.fingerprint, "images": images},
        demonstration=options.data is None,
        recipe=recipe,
        head=values.take("head", options.head and str(new), "linear", "one new layer"),
        head_at=values.take("head_at", new.at, leaves, "where the classes come from"),
        augment=_augment(values, options),
        loss=values.take("loss", options.loss and name_of(options.loss), name_of(None), "usual"),
        phases=_phases(values, options, recipe, policies, start, _changing(options, data)),
        batch_size=_batch_size(values, options, data),
        device=str(device),
        precision=precision,
        seed=values.default("seed", options.seed, "seed"),
        workers=_workers(values, options, sum(images.values())),
        bad_images=values.take(
            "bad_images", options.bad_images, "error", "nothing is left out unasked"
        ),
        val_fraction=config.defaults["val_fraction"],
    )
    return replace(plan, reasons=values.reasons)


def _why_license(start: Start) -> str:
    if start.random:
        return "random weights are nobody's"
    return "of these weights" if start.license else "none is stated; ask their publisher"


def _augment(values: _Values, options: Options) -> str:
    given = options.augment and str(parse_augment(options.augment) or "none")
    said: str = values.take("augment", given, "none", "not asked for")
    return said


def _changing(options: Options, data: ImageData) -> str | None:
    """Say why pictures change from one epoch to the next; None where they do not."""
    if parse_augment(options.augment):
        return "augmented images change"
    return None if data.still else "your data may give other pictures each time"
