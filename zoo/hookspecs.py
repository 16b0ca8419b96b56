"""Every hook that a plugin may implement.

A plugin is a module named by an entry point of the group `zoo`; the entry point's name is the
source in a backbone's id. The module is imported by every command that needs the registry, so it
must import nothing heavy: no torch, no timm.

    [project.entry-points.zoo]
    leafnet = "leafnet.plugin"
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pluggy

from zoo.spec import Backbone, Family

hookspec = pluggy.HookspecMarker("zoo")
hookimpl = pluggy.HookimplMarker("zoo")


def _freeze(value: Any) -> Any:
    if isinstance(value, Mapping):
        return MappingProxyType({key: _freeze(item) for key, item in value.items()})
    if isinstance(value, (list, tuple)):
        return tuple(_freeze(item) for item in value)
    return value


@dataclass(frozen=True)
class Event:
    """What an observer is told. Mappings and sequences inside are frozen too."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            object.__setattr__(self, name, _freeze(value))


@dataclass(frozen=True)
class FitStarted(Event):
    """Training is about to begin.

    Args:
        backbone: id of the backbone.
        plan: the resolved plan, as in `run.json`.
    """

    backbone: str
    plan: Mapping[str, Any]


@dataclass(frozen=True)
class EpochEnded(Event):
    """One epoch has been trained and validated.

    Args:
        phase: name of the phase.
        epoch: counted from 1 within the phase.
        epochs: how many the phase has.
        lr: learning rate of the last step.
        train_loss: mean over the epoch's images, auxiliary losses included.
        metrics: validation metrics: `loss`, `top1` and `top5` in 0..1.
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
        metrics: per split, as in `run.json`.
        seconds: wall time of the training.
    """

    backbone: str
    metrics: Mapping[str, Any]
    seconds: float


@dataclass(frozen=True)
class FitFailed(Event):
    """Training stopped on an error, which is raised after the observers have been told.

    Args:
        backbone: id of the backbone.
        kind: the error's class name.
        message: what it said.
    """

    backbone: str
    kind: str
    message: str


@hookspec
def zoo_register_backbones() -> Iterable[Backbone | Family]:
    """Yield the backbones that this plugin brings.

    Called once per process, when the registry is first needed. Example:

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
    """Observe that training is about to begin.

    Example:
        @zoo.hookimpl
        def zoo_before_fit(event):
            print(event.backbone, event.plan["seed"])
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
    """Observe that training is over.

    Example:
        @zoo.hookimpl
        def zoo_after_fit(event):
            print(event.metrics["val"]["top1"])
    """


@hookspec
def zoo_on_error(event: FitFailed) -> None:
    """Observe that training stopped on an error.

    Example:
        @zoo.hookimpl
        def zoo_on_error(event):
            print(event.kind, event.message)
    """
