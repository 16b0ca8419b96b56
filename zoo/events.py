"""The events passed to observing hooks; imported when a training starts, never by `zoo list`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class FrozenDict(dict[Any, Any]):
    """An immutable dict; unlike a `MappingProxyType`, json, copy and pickle accept it."""

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("an event is immutable; event.as_dict() returns a copy to change")

    __setitem__ = __delitem__ = __ior__ = _refuse
    clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[type[FrozenDict], tuple[dict[Any, Any]]]:
        return FrozenDict, (dict(self),)


def _freeze(value: Any) -> Any:
    if isinstance(value, Mapping):
        return FrozenDict((key, _freeze(item)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(_freeze(item) for item in value)
    if isinstance(value, (set, frozenset)):
        return frozenset(value)
    if isinstance(value, bytearray):
        return bytes(value)
    return value


def _plain(value: Any) -> Any:
    """Return a value as data for JSON, objects without a counterpart there as text."""
    if hasattr(value, "tolist"):  # an array, a tensor, or a scalar of either
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted((_plain(item) for item in value), key=str)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value if value is None or isinstance(value, (bool, int, str)) else str(value)


@dataclass(frozen=True)
class Event:
    """An immutable copy of what happened, its mappings, sequences and sets frozen too.

    Args:
        run_id: of the training, 32 hexadecimal digits, the same in all of its events and in
            `run.json`.
        rank: of the process that calls, as `torchrun` numbers them; rank 0, or the only process.
        world: number of processes that train together.
    """

    run_id: str = field(default="", kw_only=True, repr=False)
    rank: int = field(default=0, kw_only=True, repr=False)
    world: int = field(default=1, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            object.__setattr__(self, name, _freeze(value))

    def as_dict(self) -> dict[str, Any]:
        """Return a copy as data for JSON: dicts with keys of text, lists, numbers, text, None.

        Arrays are nested lists; a number that is not finite is None.
        """
        return {each.name: _plain(getattr(self, each.name)) for each in fields(self)}


@dataclass(frozen=True)
class FitStarted(Event):
    """Training is about to begin.

    Args:
        backbone: id of the backbone.
        plan: the resolved plan, as in `run.json`; `plan["classes"]` contains the class names.
        folder: absolute path of the run folder, in which an observer may create a folder of its
            own. If nothing is trained, an empty run folder is removed.
        earlier_epochs: epochs that ended before, if the training is resumed, over all phases; those
            after them that an observer has seen are trained again.
    """

    backbone: str
    plan: Mapping[str, Any]
    folder: str
    earlier_epochs: int = 0


@dataclass(frozen=True)
class FirstBatchRead(Event):
    """The first training batch was read.

    Args:
        images: `[images, height, width, channels]`, uint8, read-only: the network's input, resized,
            cropped and augmented, without normalization.
        targets: `[images, ...]`, read-only: for image classification a class index each, for
            segmentation a mask each.
        schema: of the targets, as in `run.json`; `schema["classes"]` contains the class names.
    """

    images: NDArray[np.uint8]
    targets: NDArray[Any]
    schema: Mapping[str, Any]

    @property
    def labels(self) -> tuple[int, ...]:
        """The class index of each image; empty where targets are not class indices."""
        indices = self.targets.ndim == 1 and self.targets.dtype.kind in "iu"
        return tuple(self.targets.tolist()) if indices else ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the network's outputs."""
        return tuple(self.schema.get("classes", ()))


@dataclass(frozen=True)
class StepEnded(Event):
    """One step of the optimizer has been taken.

    Args:
        phase: name of the phase.
        epoch: counted from 1 within the phase.
        step: counted from 1 within the epoch.
        steps: number of steps of the epoch.
        lr: learning rate of the step.
        loss: mean over the images of the batch, auxiliary losses included; under `torchrun` over
            this process's part of it.
        images: number of them.
    """

    phase: str
    epoch: int
    step: int
    steps: int
    lr: float
    loss: float
    images: int


@dataclass(frozen=True)
class EpochEnded(Event):
    """One epoch has been trained and validated.

    Args:
        phase: name of the phase.
        epoch: counted from 1 within the phase.
        epochs: number of epochs of the phase.
        lr: learning rate of its last step.
        train_loss: mean over the epoch's images, auxiliary losses included.
        metrics: of the validation images: `loss`, `top1`, `top5` and `balanced_accuracy` in 0..1,
            `images`, and custom metrics; empty without a validation split.
        best: whether this is the best epoch so far; without a validation split, every epoch is.
        seconds: wall time of the epoch.
    """

    phase: str
    epoch: int
    epochs: int
    lr: float
    train_loss: float
    metrics: Mapping[str, float]
    best: bool
    seconds: float


@dataclass(frozen=True)
class ResultsCollected(Event):
    """The results of single samples were collected for the report, after the last evaluation.

    Args:
        backbone: id of the backbone.
        results: of the task, data for JSON; `results["samples"][split]` of image classification has
            lists over the images of `val` and `test`: `name`, `true` class index, `classes` (the
            most probable ones), their `probabilities`, and `probability` of the true class.
        folder: absolute path of the run folder, which has no `run.json` yet.
    """

    backbone: str
    results: Mapping[str, Any]
    folder: str


@dataclass(frozen=True)
class FitEnded(Event):
    """Training is over and the best epoch restored.

    Args:
        backbone: id of the backbone.
        metrics: per split, as in `run.json`: `loss`, `top1`, `top5`, `balanced_accuracy`,
            `chance` (of the best constant prediction), `images` and custom metrics;
            `never_predicted` classes; `per_class`; and `confusion`, with true classes as rows, or
            None for too many classes.
        seconds: wall time of the training.
        folder: absolute path of the run folder, which contains the model file and `run.json`.
    """

    backbone: str
    metrics: Mapping[str, Any]
    seconds: float
    folder: str


@dataclass(frozen=True)
class FitFailed(Event):
    """Training stopped on an error, which is raised after the observers were called.

    Args:
        backbone: id of the backbone.
        kind: the error's class name; `KeyboardInterrupt` for Ctrl-C.
        message: of the error.
        folder: absolute path of the run folder, which is removed if it is then empty. Files of
            observers stay; the next training with the same `out` moves them to `unfinished-1/`.
    """

    backbone: str
    kind: str
    message: str
    folder: str
