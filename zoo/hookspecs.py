"""Every hook that a plugin may implement.

A plugin is a module named by an entry point of the group `zoo`; the entry point's name is the
source in a backbone's id. The module is imported by every command that needs the registry, so it
must import nothing heavy: no torch, no timm.

    [project.entry-points.zoo]
    leafnet = "leafnet.plugin"

A training tells the observing hooks what happens, in its own thread. What they return is of no
account, and they cannot change it: events are copies, random generators and torch's modes are put
back after each call, and an observer that raises is a warning.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pluggy

from zoo.spec import Backbone, Family

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

hookspec = pluggy.HookspecMarker("zoo")
hookimpl = pluggy.HookimplMarker("zoo")


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
        labels: of each image, a position in the classes.
        classes: names in the order of the logits.
    """

    images: NDArray[np.uint8]
    labels: tuple[int, ...]
    classes: tuple[str, ...]


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


@hookspec
def zoo_register_backbones() -> Iterable[Backbone | Family]:
    """Yield the backbones that this plugin brings.

    Called once per process, when the registry is first needed; what it yields is `zoo.Backbone`,
    or `zoo.Family` for many at once. Where anything about them is wrong, the plugin is left out
    whole, with one line of warning.

    Example:
        @zoo.hookimpl
        def zoo_register_backbones():
            yield zoo.Backbone(
                name="leafnet",
                builder="leafnet.model:build",
                heads=(zoo.Head("classifier[6]"),),
                preprocess=zoo.Preprocess(size=224),
            )
    """
    raise NotImplementedError


@hookspec
def zoo_before_fit(event: FitStarted) -> None:
    """Observe that training is about to begin: the network is built, and its folder is there.

    What is refused before, such as a folder without pictures, no observer is told of.

    Example:
        @zoo.hookimpl
        def zoo_before_fit(event):
            print(event.backbone, event.plan["seed"])
    """


@hookspec
def zoo_on_first_batch(event: FirstBatchRead) -> None:
    """Observe the first batch that a training reads, once, whatever it then trains on.

    Where the features of frozen layers are kept, it is the first that they are read from.

    Example:
        @zoo.hookimpl
        def zoo_on_first_batch(event):
            print(event.images.shape, [event.classes[label] for label in event.labels])
    """


@hookspec
def zoo_after_epoch(event: EpochEnded) -> None:
    """Observe an epoch that has been trained and validated.

    Example:
        @zoo.hookimpl
        def zoo_after_epoch(event):
            print(event.epoch, event.metrics["top1"])
    """


@hookspec
def zoo_after_fit(event: FitEnded) -> None:
    """Observe that training is over and the run folder is written.

    Example:
        @zoo.hookimpl
        def zoo_after_fit(event):
            print(event.metrics["val"]["top1"])
    """


@hookspec
def zoo_on_error(event: FitFailed) -> None:
    """Observe that training stopped on an error, or on Ctrl-C; the error goes on to whoever called.

    Example:
        @zoo.hookimpl
        def zoo_on_error(event):
            print(event.kind, event.message)
    """
