"""Training options, and the checks that need neither data nor network."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterator, Mapping
from copy import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from zoo.data.split import ImageData
from zoo.errors import DataError, UsageError, counted, did_you_mean
from zoo.models.build_options import BuildOptions
from zoo.options import OPTIONS, Augmentation, HeadSpec, Policy, Schedule
from zoo.options.class_weights import ClassWeights
from zoo.options.columns import Columns
from zoo.options.option import raise_together
from zoo.tasks.base import BaseTask, Criterion, Ranking

# Options of the epoch loop only: giving one of them selects it over the probe.
EPOCH_OPTIONS = (
    "epochs",
    "optimizer",
    "lr",
    "momentum",
    "weight_decay",
    "schedule",
    "batch_size",
    "patience",
)
OPTIMIZER = "adamw"
# What `--features` leaves to decide; the images are gone, and the head is solved for.
OF_FEATURES = frozenset({
    "checkpoint_every", "classes", "device", "features", "head", "keep", "out", "override",
    "recipe", "resume", "seed", "time_limit", "val", "weights", "workers",
})  # fmt: skip
SOLVED = ("probe", "ridge")


# The default of an option whose automatic value is not None: `Option.read` replaces it.
NOT_GIVEN: Any = None


@dataclass(frozen=True)
class Options:
    """The options of a training as given by the user; None for automatic.

    `zoo.options.OPTIONS` describes each. Text, from the command line or Python, is parsed on
    construction; the attributes are values.

    Attributes:
        given: names of those that are not None on construction, whose value may be the default.

    Raises:
        UsageError: values are invalid, or contradict one another; reports all of them.
        TypeError: an option does not exist.
    """

    data: Any = None
    features: str | None = None
    classes: int | None = None
    val: float | None = None
    columns: Columns | None = None
    group: str | None = None
    group_by: str | None = None
    augment: Augmentation | None = None
    views: int | None = None
    bad_images: str | None = None
    weights: str = NOT_GIVEN
    head: HeadSpec | None = None
    head_at: str | None = None
    input_size: int | None = None
    crop: str | None = None
    resize: int | None = None
    interpolation: str | None = None
    in_chans: int | None = None
    train: Policy | None = None
    recipe: str | None = None
    epochs: tuple[int, ...] | None = None
    batch_size: int | None = None
    lr: tuple[float, ...] | None = None
    optimizer: str | None = None
    momentum: float | None = None
    weight_decay: float | None = None
    schedule: Schedule | None = None
    class_weights: ClassWeights | None = None
    label_smoothing: float | None = None
    select: str | None = None
    patience: int | None = None
    seed: int | None = None
    loss: Callable[[Any, Any], Any] | None = None
    metrics: Mapping[str, Callable[[Any, Any], Any]] | None = None
    device: str = NOT_GIVEN
    precision: str = NOT_GIVEN
    memory_format: str = NOT_GIVEN
    engine: str = NOT_GIVEN
    workers: int | None = None
    cache_images: bool | None = None
    micro_batch_size: int | None = None
    out: str | Path | None = None
    resume: str | None = None
    override: bool | None = None
    checkpoint_every: float | None = None
    keep: int = NOT_GIVEN
    time_limit: float | None = None
    given: frozenset[str] = field(init=False, compare=False, repr=False)
    build_options: BuildOptions = field(init=False, compare=False, repr=False)
    criterion: Criterion | None = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        named = (option.name for option in OPTIONS if getattr(self, option.name) is not None)
        object.__setattr__(self, "given", frozenset(named))
        errors: dict[str, UsageError] = {}
        for option in OPTIONS:
            try:
                value = option.read(getattr(self, option.name))
            except UsageError as error:
                errors[option.name], value = error, None
            object.__setattr__(self, option.name, value)
        raise_together(
            [*errors.values(), *_contradictions(self, errors), *_invalid_functions(self)]
        )
        head = self.head or HeadSpec()
        head = replace(head, at=self.head_at or head.at)
        build_options = BuildOptions(
            self.input_size, self.in_chans, head, self.crop, self.resize, self.interpolation
        )
        object.__setattr__(self, "build_options", build_options)
        object.__setattr__(self, "criterion", self.loss)

    def with_criterion(self, task: BaseTask, data: ImageData) -> Options:
        """Return the options with the task's loss of class weights and label smoothing.

        Raises:
            UsageError: the task has no classes to weight, or a name is not one of them.
        """
        if self.class_weights is None and not self.label_smoothing:
            return self
        criterion = task.weighted_loss(data, self.class_weights, self.label_smoothing or 0.0)
        return self.with_values(criterion=criterion)

    def with_values(self, **values: Any) -> Options:
        """Return a copy with other values, which are not checked; `given` stays the same."""
        changed = copy(self)
        for name, value in values.items():
            object.__setattr__(changed, name, value)
        return changed


def _contradictions(options: Options, invalid: Container[str]) -> Iterator[UsageError]:
    """Yield an error for each pair of options that exclude each other; ignore `invalid` ones."""
    if options.features is not None:
        yield from _not_of_features(options)
    elif options.recipe == "ridge":
        yield UsageError("--recipe ridge requires --features", "give --recipe probe")
    if options.group is not None and options.group_by is not None:
        yield UsageError("--group and --group-by exclude each other", "give one of them")
    if options.train is not None and options.recipe is not None:
        yield UsageError("--train and --recipe exclude each other", "give one of them")
    if options.head and options.head_at and options.head.at not in (None, options.head_at):
        message = (
            f"--head names the module {options.head.at}, but --head-at names {options.head_at}"
        )
        yield UsageError(message, "give one of them")
    optimizer = options.optimizer or OPTIMIZER
    if options.momentum is not None and optimizer != "sgd" and "optimizer" not in invalid:
        yield UsageError("--momentum requires sgd", "add --optimizer sgd")
    for name in ("class_weights", "label_smoothing"):
        if getattr(options, name) is not None and options.loss is not None:
            flag = f"--{name.replace('_', '-')}"
            yield UsageError(f"{flag} and loss exclude each other", "weight classes in your loss")
    if options.resume is not None and options.out is not None:
        yield UsageError("--resume and --out exclude each other", "the run folder is that of RUN")
    if options.override and options.resume is None:
        yield UsageError("--override requires --resume", "add it, or omit --override")
    if options.views is not None and not options.augment and "augment" not in invalid:
        yield UsageError("--views requires augmented images", "add --augment")


def _not_of_features(options: Options) -> Iterator[UsageError]:
    """Yield an error for each option that does not apply to features."""
    for option in OPTIONS:
        given = getattr(options, option.name)
        allowed = option.name in OF_FEATURES
        if option.name == "recipe" and given is not None:
            allowed = given in SOLVED
        if not allowed and given != option.default:
            message = f"{option.flag} does not apply to --features"
            yield UsageError(message, "it is decided by them or needs images")


def _invalid_functions(options: Options) -> Iterator[UsageError]:
    """Yield an error for each loss or metric that is not callable or has an invalid name."""
    metrics = options.metrics or {}
    if not isinstance(metrics, Mapping):
        kind = type(metrics).__name__
        yield UsageError(f"metrics is a {kind}", "give a dict of functions by name")
        metrics = {}
    functions = {"loss": options.loss} if options.loss is not None else {}
    functions |= {f"metric {name!r}": function for name, function in metrics.items()}
    for label, function in functions.items():
        if isinstance(function, type):
            name = function.__name__
            yield UsageError(f"the {label} is the class {name}", f"give an instance: {name}(...)")
        elif not callable(function):
            message = f"the {label} is a {type(function).__name__}"
            yield UsageError(message, "give a function of outputs and targets")
    for name in metrics:
        if not str(name).isidentifier():
            yield UsageError(f"a metric cannot be named {name!r}", "use letters, digits and _")


def check_metric_names(options: Options, reserved: Collection[str]) -> None:
    """Check that no metric of the user's has the name of one of the task's.

    Raises:
        UsageError: lists all names that are reserved.
    """
    hint = f"choose another name; the task reserves {', '.join(reserved)}"
    raise_together(
        [
            UsageError(f"a metric cannot be named {name!r}", hint)
            for name in options.metrics or ()
            if name in reserved
        ]
    )


def select_metric(options: Options, task: BaseTask) -> Ranking | None:
    """Return the metric of `--select`, one of the task's or of the user's; None by default.

    Raises:
        UsageError: the task does not compute it; lists those that can be selected.
    """
    name, names = options.select, (*task.directions, *(options.metrics or ()))
    if name is None:
        return None
    if name not in names:
        hint = did_you_mean(name, names, f"one of {', '.join(names)}")
        raise UsageError(f"--select {name}: {task.name} has no such metric", hint)
    return Ranking(name, task.directions.get(name, "max"))


def data_options(options: Options) -> dict[str, Any]:
    """Return the options of the data that not every task supports, by name."""
    return {"columns": options.columns, "group": options.group, "group_by": options.group_by}


def given_data_options(options: Options) -> dict[str, str]:
    """Return the text of each of `data_options` that is given, by name."""
    return {name: str(value) for name, value in data_options(options).items() if value is not None}


def check_validation(options: Options, data: ImageData) -> None:
    """Check `--val` against the data.

    Raises:
        UsageError: the data has a validation split of its own.
    """
    if options.val is not None and data.own_val:
        message = f"--val {options.val:g}, but {data.name} has a validation split"
        raise UsageError(message, "omit it, or give data without that split")


def check_classes(options: Options, data: ImageData) -> None:
    """Check `--classes` against the data.

    Raises:
        DataError: the number differs; lists the classes of the data.
        UsageError: the targets are not classes.
    """
    count = len(data.classes)
    if options.classes is not None and not count:
        message = f"--classes {options.classes}, but the targets of {data.name} are not classes"
        raise UsageError(message, "omit it")
    if options.classes is not None and options.classes != count:
        names = ", ".join(data.classes[:10]) + (", ..." if count > 10 else "")
        message = (
            f"--classes {options.classes}, but {data.name} has {counted(count, 'class')}: {names}"
        )
        raise DataError(message, f"give --classes {count}, or other --data")
