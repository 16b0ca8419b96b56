"""What a user may ask of a training, and what is refused before anything is read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from zoo.data.split import ImageData
from zoo.errors import DataError, UsageError
from zoo.models.build_options import BuildOptions
from zoo.options import OPTIONS, Augmentation, HeadSpec, Policy, Schedule
from zoo.options.option import raise_together

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
OPTIMIZER = "adamw"


@dataclass(frozen=True)
class Options:
    """What the user asked of a training; None leaves it to the plan.

    `zoo.options.OPTIONS` describes each. Text, from the command line or in Python, is parsed when
    the options are made; what is there afterwards is values.

    Raises:
        UsageError: values are of no use, or contradict one another; names all that are wrong.
        TypeError: an option does not exist.
    """

    data: Any = None
    classes: int | None = None
    augment: Augmentation | None = None
    views: int | None = None
    bad_images: str | None = None
    weights: str = "auto"
    head: HeadSpec | None = None
    head_at: str | None = None
    input_size: int | None = None
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
    seed: int | None = None
    loss: Callable[[Any, Any], Any] | None = None
    metrics: Mapping[str, Callable[[Any, Any], Any]] | None = None
    device: str = "auto"
    precision: str = "auto"
    workers: int | None = None
    cache_images: bool | None = None
    micro_batch_size: int | None = None
    out: str | Path | None = None
    changes: BuildOptions = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        faults: dict[str, UsageError] = {}
        for option in OPTIONS:
            try:
                value = option.read(getattr(self, option.name))
            except UsageError as fault:
                faults[option.name], value = fault, None
            object.__setattr__(self, option.name, value)
        raise_together([*faults.values(), *_contradictions(self, faults), *_wrong_functions(self)])
        head = self.head or HeadSpec()
        head = replace(head, at=self.head_at or head.at)
        changes = BuildOptions(self.input_size, self.in_chans, head)
        object.__setattr__(self, "changes", changes)


def _contradictions(options: Options, wrong: Container[str]) -> Iterator[UsageError]:
    """Yield what is wrong with options together; those that are `wrong` alone contradict none."""
    if options.train is not None and options.recipe is not None:
        yield UsageError("--train and --recipe exclude each other", "give one of them")
    if options.head and options.head_at and options.head.at not in (None, options.head_at):
        message = f"--head is for {options.head.at}, and --head-at is {options.head_at}"
        yield UsageError(message, "give one of them")
    optimizer = options.optimizer or OPTIMIZER
    if options.momentum is not None and optimizer != "sgd" and "optimizer" not in wrong:
        yield UsageError("--momentum is for sgd", "give --optimizer sgd too")
    if options.views is not None and not options.augment and "augment" not in wrong:
        yield UsageError("--views is for augmented images", "give --augment too")


def _wrong_functions(options: Options) -> Iterator[UsageError]:
    """Yield why a loss or metrics cannot be called, or take a name that is taken."""
    metrics = options.metrics or {}
    if not isinstance(metrics, Mapping):
        kind = type(metrics).__name__
        yield UsageError(f"metrics is a {kind}", "give a dict of names and functions")
        metrics = {}
    functions = {"loss": options.loss} if options.loss is not None else {}
    functions |= {f"metric {name!r}": function for name, function in metrics.items()}
    for what, function in functions.items():
        if isinstance(function, type):
            name = function.__name__
            yield UsageError(f"the {what} is the class {name}", f"give {name}(...), made of it")
        elif not callable(function):
            message = f"the {what} is a {type(function).__name__}"
            yield UsageError(message, "give a function of outputs and targets")
    for name in metrics:
        if not str(name).isidentifier():
            yield UsageError(f"a metric cannot be named {name!r}", "give letters and digits")


def check_metric_names(options: Options, reserved: Collection[str]) -> None:
    """Refuse names of the user's own metrics that the task's have.

    Raises:
        UsageError: names all that are refused.
    """
    hint = f"give another; the task has {', '.join(reserved)}"
    raise_together(
        [
            UsageError(f"a metric cannot be named {name!r}", hint)
            for name in options.metrics or ()
            if name in reserved
        ]
    )


def check_classes(options: Options, data: ImageData) -> None:
    """Refuse data that contradicts `--classes`.

    Raises:
        DataError: names the classes that there are.
        UsageError: its targets are no classes.
    """
    found = len(data.classes)
    if options.classes is not None and not found:
        message = f"--classes {options.classes}, but the targets of {data.name} are no classes"
        raise UsageError(message, "leave it out")
    if options.classes is not None and options.classes != found:
        some = ", ".join(data.classes[:10]) + (", ..." if found > 10 else "")
        message = f"--classes {options.classes}, but {data.name} has {found} classes: {some}"
        raise DataError(message, f"give --classes {found}, or other --data")
