"""What the observing hooks are told; imported when a training starts, and by no light command."""

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
    """What an observer is told: copies, with mappings, sequences and sets inside frozen too."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            object.__setattr__(self, name, _freeze(value))


@dataclass(frozen=True)
class FitStarted(Event):
    """Training is about to begin.

    Args:
        backbone: id of the backbone.
        plan: the resolved plan, as in `run.json`; `plan["classes"]` has the names of the classes.
        folder: absolute path of the run folder, in which an observer may make a folder of its own.
            Where nothing was trained, a run folder that holds nothing is taken away again.
    """

    backbone: str
    plan: Mapping[str, Any]
    folder: str


@dataclass(frozen=True)
class FirstBatchRead(Event):
    """The first training batch is about to go through the network.

    Args:
        images: `[images, height, width, channels]`, uint8, over memory that cannot be written:
            what the network gets, resized, cropped and augmented, its normalization undone.
        targets: `[images, ...]`, over memory that cannot be written: for image classification a
            class index each, for segmentation a mask each.
        schema: what the targets are, as in `run.json`; `schema["classes"]` has the class names.
    """

    images: NDArray[np.uint8]
    targets: NDArray[Any]
    schema: Mapping[str, Any]

    @property
    def labels(self) -> tuple[int, ...]:
        """The class index of each image; empty where targets are something else."""
        whole = self.targets.ndim == 1 and self.targets.dtype.kind in "iu"
        return tuple(self.targets.tolist()) if whole else ()

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
        epochs: how many the phase has.
        lr: learning rate of its last step.
        train_loss: mean over the epoch's images, auxiliary losses included.
        metrics: of the validation images: `loss`, `top1` and `top5` in 0..1, `images`, and those
            of your own.
        best: whether this is the best epoch so far.
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
        metrics: per split, as in `run.json`: `loss`, `top1`, `top5`, `images` and metrics of your
            own; `per_class`; and `confusion`, whose rows are true classes, or None where there are
            too many of them.
        seconds: wall time of the training.
        folder: absolute path of the run folder, in which the model file and `run.json` now are.
    """

    backbone: str
    metrics: Mapping[str, Any]
    seconds: float
    folder: str


@dataclass(frozen=True)
class FitFailed(Event):
    """Training stopped on an error, which is raised after the observers have been told.

    Args:
        backbone: id of the backbone.
        kind: the error's class name; `KeyboardInterrupt` for Ctrl-C.
        message: what it said.
        folder: absolute path of the run folder, which is taken away if it then holds nothing.
    """

    backbone: str
    kind: str
    message: str
    folder: str
