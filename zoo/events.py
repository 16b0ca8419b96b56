"""The events passed to observing hooks; imported when a training starts, never by `zoo list`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def _freeze(value: Any) -> Any:
    if isinstance(value, Mapping):
        return MappingProxyType({key: _freeze(item) for key, item in value.items()})
    if isinstance(value, (list, tuple)):
        return tuple(_freeze(item) for item in value)
    if isinstance(value, (set, frozenset)):
        return frozenset(value)
    if isinstance(value, bytearray):
        return bytes(value)
    return value


@dataclass(frozen=True)
class Event:
    """An immutable copy of what happened, its mappings, sequences and sets frozen too."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            object.__setattr__(self, name, _freeze(value))


@dataclass(frozen=True)
class FitStarted(Event):
    """Training is about to begin.

    Args:
        backbone: id of the backbone.
        plan: the resolved plan, as in `run.json`; `plan["classes"]` contains the class names.
        folder: absolute path of the run folder, in which an observer may create a folder of its
            own. If nothing is trained, an empty run folder is removed.
    """

    backbone: str
    plan: Mapping[str, Any]
    folder: str


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
