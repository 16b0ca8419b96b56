"""From options to a plan: explicit values as given, automatic ones by fixed rules."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from zoo.config import Config
from zoo.data.split import ImageData
from zoo.engine.device import resolve_device, resolve_precision
from zoo.engine.plan import Phase, Plan
from zoo.engine.schedule import OPTIMIZERS, parse_schedule
from zoo.errors import DataError, UsageError, did_you_mean
from zoo.models.freeze import parse_policy
from zoo.models.state import load_state
from zoo.spec import Backbone, Preprocess

RECIPES = {"head": ("head",), "all": ("all",), "head-then-all": ("head", "all")}
BAD_IMAGES = ("error", "skip")
OPTIMIZER = "adamw"
SGD_FACTOR = 10.0
LATER_FACTOR = 0.1
WORTH_WORKERS = 1000


@dataclass(frozen=True)
class Options:
    """What the user asked of a training; None leaves it to the plan.

    Args:
        data: a folder of images; None for the embedded set.
        classes: the number of classes that the data must have.
        out: the run folder.
        train: a policy; the one-phase recipe.
        recipe: a named list of phases.
        epochs: per phase; one value is for every phase.
        batch_size: images per step.
        optimizer: `sgd` or `adamw`.
        lr: per phase; after one value, later phases take a tenth of it.
        momentum: for `sgd`.
        weight_decay: as torch applies it.
        schedule: `constant`, `step:SIZE,GAMMA` or `cosine:WARMUP`.
        weights: `auto`, `none`, a published tag, or a `.safetensors` file.
        device: `auto` or as torch names it.
        precision: `auto`, `fp32` or `bf16`.
        seed: of all randomness.
        workers: processes that decode.
        bad_images: `error` or `skip`.
    """

    data: str | Path | None = None
    classes: int | None = None
    out: str | Path | None = None
    train: str | None = None
    recipe: str | None = None
    epochs: int | Sequence[int] | None = None
    batch_size: int | None = None
    optimizer: str | None = None
    lr: float | Sequence[float] | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    schedule: str | None = None
    weights: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    seed: int | None = None
    workers: int | None = None
    bad_images: str | None = None


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
    """

    choice: str
    reason: str
    random: bool
    kwargs: Mapping[str, Any]
    preprocess: Preprocess
    preprocess_reason: str = "of these weights"
    untrained: tuple[str, ...] = ()


def check_options(options: Options) -> None:
    """Refuse options that contradict each other or mean nothing, before anything is read.

    Raises:
        UsageError: says which, and what to give instead.
    """
    if options.train is not None and options.recipe is not None:
        raise UsageError("--train and --recipe exclude each other", "give one of them")
    if options.train is not None:
        parse_policy(options.train)
    if options.recipe is not None and options.recipe not in RECIPES:
        hint = did_you_mean(options.recipe, list(RECIPES), f"one of {', '.join(RECIPES)}")
        raise UsageError(f"no recipe is named {options.recipe!r}", hint)
    if options.optimizer is not None and options.optimizer not in OPTIMIZERS:
        hint = did_you_mean(options.optimizer, OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}")
        raise UsageError(f"no optimizer is named {options.optimizer!r}", hint)
    if options.bad_images is not None and options.bad_images not in BAD_IMAGES:
        hint = did_you_mean(options.bad_images, BAD_IMAGES, f"one of {', '.join(BAD_IMAGES)}")
        raise UsageError(f"--bad-images {options.bad_images!r} is unknown", hint)
    if options.schedule is not None:
        parse_schedule(options.schedule)
    if options.momentum is not None and (options.optimizer or OPTIMIZER) != "sgd":
        raise UsageError("--momentum is for sgd", "give --optimizer sgd too")
    _check_numbers(options)


def _check_numbers(options: Options) -> None:
    """Refuse numbers out of range; what is not a number is in no range."""
    checks = (
        ("classes", options.classes, 2, 2**31),
        ("batch-size", options.batch_size, 2, 2**31),
        ("workers", options.workers, 0, 2**10),
        ("seed", options.seed, 0, 2**63 - 1),
        ("weight-decay", options.weight_decay, 0, 1e9),
        ("momentum", options.momentum, 0, 1),
    )
    for name, value, least, most in checks:
        if value is not None and not least <= value <= most:
            raise UsageError(f"--{name} is {value}", f"give a number from {least} to {most}")
    for name, values, least in (("epochs", options.epochs, 1), ("lr", options.lr, 0)):
        several = _several(values)
        if several is not None and not several:
            raise UsageError(f"--{name} is empty", "give one value, or one for each phase")
        for value in several or ():
            if not least <= value < float("inf") or value == 0:
                raise UsageError(f"--{name} has {value}", "give positive numbers")


def check_classes(options: Options, data: ImageData) -> None:
    """Refuse data that contradicts `--classes`.

    Raises:
        DataError: names the classes that there are.
    """
    found = len(data.classes)
    if options.classes is not None and options.classes != found:
        some = ", ".join(data.classes[:10]) + (", ..." if found > 10 else "")
        message = f"--classes {options.classes}, but {data.name} has {found} classes: {some}"
        raise DataError(message, f"give --classes {found}, or other --data")


def _several(value: Any) -> tuple[Any, ...] | None:
    if value is None:
        return None
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


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


def _phase(values: _Values, options: Options, number: int, policy: str, start: Start) -> Phase:
    kind = "head" if policy == "head" else "random" if start.random else "tune" if number else "all"
    where = f"phases.{number}."
    epochs, rates = _several(options.epochs), _several(options.lr)
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
    keep = policy == "head"
    values.reasons[f"{where}keep_features"] = (
        "auto: only heads train, on images that do not change" if keep else "auto: features change"
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
        lr=lr,
        momentum=values.default(f"{where}momentum", options.momentum, "momentum"),
        weight_decay=values.default(f"{where}weight_decay", options.weight_decay, "weight_decay"),
        schedule=values.take(
            f"{where}schedule", options.schedule, "cosine:0.1", "no length to choose"
        ),
        keep_features=keep,
    )


def _phases(
    values: _Values, options: Options, recipe: str, policies: Sequence[str], start: Start
) -> tuple[Phase, ...]:
    values.reasons |= {f"phases.{n}.policy": f"of {recipe}" for n in range(len(policies))}
    for name, given in (("epochs", options.epochs), ("lr", options.lr)):
        several = _several(given)
        if several and len(several) > len(policies):
            message = f"--{name} has {len(several)} values, but {recipe} has {len(policies)} phase"
            raise UsageError(message + "s" * (len(policies) > 1))
    return tuple(_phase(values, options, n, p, start) for n, p in enumerate(policies))


def _workers(values: _Values, options: Options, images: int) -> int:
    automatic = 0 if images < WORTH_WORKERS else min(_cores(), 8)
    how = ", one per core" if automatic else " are read in-process"
    workers: int = values.take("workers", options.workers, automatic, f"{images:,} images{how}")
    return workers


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
    values.reasons |= {
        "backbone": backbone.origin,
        "weights": start.reason,
        "preprocess": start.preprocess_reason,
        "data": data.reason,
        "classes": "as found in the data, by name",
    }
    plan = Plan(
        backbone=backbone.id,
        weights=Path(start.choice).name,
        kwargs=dict(start.kwargs),
        preprocess=start.preprocess,
        classes=data.classes,
        data={
            "name": data.name,
            "fingerprint": data.fingerprint,
            "images": images,
        },
        demonstration=options.data is None,
        recipe=recipe,
        phases=_phases(values, options, recipe, policies, start),
        batch_size=values.default("batch_size", options.batch_size, "batch_size"),
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


def smallest_size(model: torch.nn.Module, preprocess: Preprocess, sizes: Sequence[int]) -> int:
    """Return the first of some sizes that a network takes in training, found by running it.

    Args:
        model: with random weights; its statistics are put back.
        preprocess: whose own size is the last resort.
        sizes: in pixels, smallest first.
    """
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    for size in sizes:
        if size >= min(preprocess.height, preprocess.width):
            break
        try:
            with torch.no_grad():
                model(torch.zeros(2, 3, size, size))
        except (RuntimeError, ValueError, AssertionError):
            continue
        finally:
            load_state(model, before)
        return size
    return min(preprocess.height, preprocess.width)
