"""What a user may ask of a training, and what is refused before anything is read."""

from __future__ import annotations

import numbers
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.data.augment import parse_augment
from zoo.data.split import ImageData
from zoo.engine.training.optim import OPTIMIZERS, parse_schedule
from zoo.errors import DataError, UsageError, did_you_mean
from zoo.models.build_options import Changes
from zoo.models.freeze import parse_policy
from zoo.models.head_factory import parse_head

RECIPES = {
    "probe": ("head",),
    "head": ("head",),
    "all": ("all",),
    "head-then-all": ("head", "all"),
}
# What the epoch loop alone understands, so that naming one of them asks for it.
OF_THE_LOOP = (
    "epochs",
    "optimizer",
    "lr",
    "momentum",
    "weight_decay",
    "schedule",
    "batch_size",
)
MOST_VIEWS = 1000
BAD_IMAGES = ("error", "skip")
OPTIMIZER = "adamw"
COUNTED = ("loss", "top1", "top5", "images", "per_class", "confusion")


@dataclass(frozen=True)
class Options:
    """What the user asked of a training; None leaves it to the plan.

    Args:
        data: a folder of images, or what else the task's `open_data` takes; None for the
            embedded set.
        classes: the number of classes that the data must have.
        out: the run folder.
        train: a policy; the one-phase recipe.
        recipe: a named list of phases.
        head: what replaces the main head: `linear`, or `mlp:4096,dropout=0.5`.
        head_at: path of the module that it replaces; None for the leaf that ends in the classes.
        epochs: per phase; one value is for every phase.
        batch_size: images per step.
        micro_batch_size: images that go through the network at once; the gradients of a step's
            parts are summed.
        optimizer: `sgd`, `adam` or `adamw`.
        lr: per phase; after one value, later phases take a tenth of it.
        momentum: for `sgd`.
        weight_decay: as torch applies it.
        schedule: `constant`, `step:SIZE,GAMMA` or `cosine:WARMUP`.
        augment: what is done to training pictures, such as `crop,flip`; `none` for nothing.
        views: so many augmented views of each training picture are kept, where only heads train.
        input_size: height and width in pixels of what the network sees.
        in_chans: channels that it sees; 1 for grey.
        loss: called with logits `[images, classes]` in float32 and labels `[images]`, gives a
            scalar; None for cross-entropy. It trains; the loss that is reported of a split is
            cross-entropy whatever it is.
        metrics: by name, called with all logits and labels of a split on the CPU, give a number
            that is reported beside zoo's own.
        weights: `auto`, `none`, a published tag, or a `.safetensors` file.
        device: `auto` or as torch names it.
        precision: `auto`, `fp32` or `bf16`.
        seed: of all randomness.
        workers: processes that decode.
        cache_images: keep prepared pictures, so that each is decoded once.
        bad_images: `error` or `skip`.
    """

    data: Any = None
    classes: int | None = None
    out: str | Path | None = None
    train: str | None = None
    recipe: str | None = None
    head: str | None = None
    head_at: str | None = None
    epochs: int | Sequence[int] | None = None
    batch_size: int | None = None
    micro_batch_size: int | None = None
    optimizer: str | None = None
    lr: float | Sequence[float] | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    schedule: str | None = None
    augment: str | None = None
    views: int | None = None
    input_size: int | None = None
    in_chans: int | None = None
    loss: Callable[[Any, Any], Any] | None = None
    metrics: Mapping[str, Callable[[Any, Any], Any]] | None = None
    weights: str = "auto"
    device: str = "auto"
    precision: str = "auto"
    seed: int | None = None
    workers: int | None = None
    cache_images: bool | None = None
    bad_images: str | None = None

    @property
    def changes(self) -> Changes:
        """What is asked of the backbone.

        Raises:
            UsageError: `head` has none of its forms.
        """
        return Changes(self.input_size, self.in_chans, parse_head(self.head, self.head_at))


def check_options(options: Options) -> None:
    """Refuse options that contradict each other or mean nothing, before anything is read.

    Raises:
        UsageError: says which, and what to give instead.
    """
    if options.train is not None and options.recipe is not None:
        raise UsageError("--train and --recipe exclude each other", "give one of them")
    if options.train is not None:
        parse_policy(options.train)
    for what, value, known in (
        ("recipe", options.recipe, tuple(RECIPES)),
        ("optimizer", options.optimizer, OPTIMIZERS),
    ):
        if value is not None and value not in known:
            hint = did_you_mean(value, known, f"one of {', '.join(known)}")
            raise UsageError(f"no {what} is named {value!r}", hint)
    if options.bad_images is not None and options.bad_images not in BAD_IMAGES:
        hint = did_you_mean(options.bad_images, BAD_IMAGES, f"one of {', '.join(BAD_IMAGES)}")
        raise UsageError(f"--bad-images {options.bad_images!r} is unknown", hint)
    if options.schedule is not None:
        parse_schedule(options.schedule)
    parse_head(options.head, options.head_at)
    parse_augment(options.augment)
    if options.momentum is not None and (options.optimizer or OPTIMIZER) != "sgd":
        raise UsageError("--momentum is for sgd", "give --optimizer sgd too")
    _check_numbers(options)
    _check_functions(options)


def _check_numbers(options: Options) -> None:
    """Refuse numbers out of range; what is not a number is in no range."""
    checks = (
        ("classes", options.classes, 2, 2**31),
        ("batch-size", options.batch_size, 2, 2**31),
        ("micro-batch-size", options.micro_batch_size, 1, 2**31),
        ("input-size", options.input_size, 1, 2**14),
        ("in-chans", options.in_chans, 1, 2**10),
        ("workers", options.workers, 0, 2**10),
        ("views", options.views, 1, MOST_VIEWS),
        ("seed", options.seed, 0, 2**63 - 1),
        ("weight-decay", options.weight_decay, 0, 1e9),
        ("momentum", options.momentum, 0, 1),
    )
    for name, value, least, most in checks:
        if value is not None and not (_is_number(value) and least <= value <= most):
            raise UsageError(f"--{name} is {value!r}", f"give a number from {least} to {most}")
    for name, values, least in (("epochs", options.epochs, 1), ("lr", options.lr, 0)):
        given = several(values)
        if given is not None and not given:
            raise UsageError(f"--{name} is empty", "give one value, or one for each phase")
        for value in given or ():
            if not (_is_number(value) and least <= value < float("inf")) or value == 0:
                raise UsageError(f"--{name} has {value!r}", "give positive numbers")


def _is_number(value: object) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def _check_functions(options: Options) -> None:
    """Refuse a loss and metrics that cannot be called, or take a name that is taken."""
    if not isinstance(options.metrics, Mapping | None):
        kind = type(options.metrics).__name__
        raise UsageError(f"metrics is a {kind}", "give a dict of names and functions")
    functions = {"loss": options.loss} if options.loss is not None else {}
    functions |= {f"metric {name!r}": made for name, made in (options.metrics or {}).items()}
    for what, function in functions.items():
        if isinstance(function, type):
            name = function.__name__
            raise UsageError(f"the {what} is the class {name}", f"give {name}(...), made of it")
        if not callable(function):
            message = f"the {what} is a {type(function).__name__}"
            raise UsageError(message, "give a function of logits and labels")
    for name in options.metrics or {}:
        if name in COUNTED or not str(name).isidentifier():
            hint = f"give another, of letters and digits; zoo has {', '.join(COUNTED)}"
            raise UsageError(f"a metric cannot be named {name!r}", hint)


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


def several(value: Any) -> tuple[Any, ...] | None:
    """Return one value, or one for each phase, as a tuple; None where nothing was given."""
    if value is None:
        return None
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)
