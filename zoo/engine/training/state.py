"""Mutable state of a training, in one object that converts to tensors and JSON."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from zoo.events import EpochEnded
from zoo.tasks.base import Metric, Ranking

Generator = tuple[Callable[[], Tensor], Callable[[Tensor], None]]


@dataclass(frozen=True)
class Adjustment:
    """A change to a value of the plan during training, such as after running out of memory.

    Args:
        name: of the value in the plan.
        value: the new one.
        reason: of the change.
        phase: index of the phase, from 0.
        epoch: in the phase, from 1; 0 before the first.
    """

    name: str
    value: Any
    reason: str
    phase: int
    epoch: int


@dataclass
class BestCheckpoint:
    """Checkpoint of the epoch with the highest score; of equal ones, the earliest.

    Without validation, it is the last epoch.

    Args:
        score: of the epoch; None before the first; empty without validation.
        tensors: trained tensors after the epoch, by name.
        metric: of its validation; None without.
    """

    score: tuple[float, ...] | None = None
    tensors: dict[str, Tensor] | None = None
    metric: Metric | None = None

    def update(
        self,
        metric: Metric | None,
        values: Mapping[str, float],
        module: nn.Module,
        names: Sequence[str],
        ranking: Ranking | None = None,
    ) -> bool:
        """Save an epoch if it is the best so far, and return whether it is.

        Args:
            metric: of the validation split; None without one.
            values: computed by it.
            module: the network after the epoch.
            names: entries of its state dict that the phase can change.
            ranking: ranks the epochs; None for the metric's own score.
        """
        score: tuple[float, ...] = ()
        if metric is not None:
            score = metric.score(values) if ranking is None else ranking.score(values)
            if self.score is not None and score <= self.score:
                return False
        tensors = module.state_dict()
        self.tensors = {name: tensors[name].detach().clone() for name in names}
        self.score, self.metric = score, metric
        return True

    def extend(self, module: nn.Module, names: Sequence[str]) -> None:
        """Add the current value of tensors that only a later phase can change."""
        if self.tensors is not None:
            tensors = module.state_dict()
            new = [name for name in names if name not in self.tensors]
            self.tensors |= {name: tensors[name].detach().clone() for name in new}


@dataclass
class TrainState:
    """State of a training.

    Args:
        micro_batch_size: samples per forward pass.
        phase: index of the current phase, from 0.
        epoch: in the phase, from 1; 0 before its first.
        step: steps taken in the epoch.
        earlier_epochs: epochs of earlier phases.
        optimizer: of the current phase; None before its first epoch.
        best: checkpoint of the best epoch.
        history: all epochs.
        adjustments: changes to the plan, in order.
        probe: report on a solved head for `run.json`; None without one.
        duplicates: images with equal content, for `run.json`; None before they are read.
        stopped: why a plugin stopped the training; None where none did.
    """

    micro_batch_size: int
    phase: int = 0
    epoch: int = 0
    step: int = 0
    earlier_epochs: int = 0
    optimizer: torch.optim.Optimizer | None = None
    best: BestCheckpoint = field(default_factory=BestCheckpoint)
    history: list[EpochEnded] = field(default_factory=list)
    adjustments: list[Adjustment] = field(default_factory=list)
    probe: dict[str, Any] | None = None
    duplicates: dict[str, Any] | None = None
    stopped: str | None = None

    @property
    def total_epoch(self) -> int:
        """The current epoch, counted from 1 over all phases."""
        return self.earlier_epochs + self.epoch

    def start_phase(self, phase: int) -> None:
        """Reset the counters for a phase."""
        self.phase, self.epoch, self.step, self.optimizer = phase, 0, 0, None

    def adjust(self, name: str, value: Any, reason: str) -> None:
        """Record an adjustment in the current phase and epoch."""
        self.adjustments.append(Adjustment(name, value, reason, self.phase, self.epoch))

    def state_dict(
        self, module: nn.Module, names: Sequence[str]
    ) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Return the state as tensors on the CPU and data for JSON.

        Args:
            module: the network.
            names: entries of its state dict that the phase can change.
        """
        tensors = {f"module.{n}": t for n, t in module.state_dict().items() if n in set(names)}
        plain: dict[str, Any] = {
            name: getattr(self, name)
            for name in ("micro_batch_size", "phase", "epoch", "step", "earlier_epochs", "probe")
        }
        plain["history"] = [_event_to_dict(event) for event in self.history]
        plain["adjustments"] = [asdict(each) for each in self.adjustments]
        for number, (get, _) in enumerate(generators(next(module.parameters()).device)):
            tensors[f"generator.{number}"] = get()
        plain["optimizer"] = _pack(_optimizer_dict(self.optimizer), "optimizer", tensors)
        plain["best"] = _pack(_best_dict(self.best), "best", tensors)
        copies = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in tensors.items()
        }
        return copies, plain

    def load_state_dict(
        self,
        tensors: Mapping[str, Tensor],
        plain: Mapping[str, Any],
        module: nn.Module,
        optimizer: torch.optim.Optimizer | None,
        metric: Metric,
    ) -> None:
        """Restore what `state_dict` returned.

        Args:
            tensors: of `state_dict`.
            plain: of `state_dict`, also after JSON.
            module: a network of the same structure, changed in place.
            optimizer: a new one for the phase, over the same parameters; None before epoch 1.
            metric: a new one of the task, for the state of the best epoch.
        """
        for name in ("micro_batch_size", "phase", "epoch", "step", "earlier_epochs", "probe"):
            setattr(self, name, plain[name])
        self.history = [EpochEnded(**event) for event in plain["history"]]
        self.adjustments = [Adjustment(**each) for each in plain["adjustments"]]
        own = module.state_dict()
        with torch.no_grad():
            for name, tensor in tensors.items():
                if name.startswith("module."):
                    own[name.removeprefix("module.")].copy_(tensor)
        self.optimizer = optimizer
        stored = _unpack(plain["optimizer"], tensors)
        if optimizer is not None and stored is not None:
            state = {int(number): values for number, values in stored["state"].items()}
            optimizer.load_state_dict({**stored, "state": state})
            _match_strides(optimizer)
        best = _unpack(plain["best"], tensors)
        if best["score"] is None:
            self.best = BestCheckpoint()
        else:
            best_metric = None
            if best["metric"] is not None:
                metric.load_state_dict(best["metric"])
                best_metric = metric
            device = next(module.parameters()).device
            moved = {name: tensor.to(device) for name, tensor in best["tensors"].items()}
            self.best = BestCheckpoint(tuple(best["score"]), moved, best_metric)
        for number, (_, put) in enumerate(generators(next(module.parameters()).device)):
            put(tensors[f"generator.{number}"])


def generators(device: torch.device) -> Iterator[Generator]:
    """Yield getter and setter of the state of each random generator that a network uses."""
    yield torch.get_rng_state, torch.set_rng_state
    if device.type != "cpu":
        module = torch.get_device_module(device)
        yield (
            lambda: module.get_rng_state(device),
            lambda state: module.set_rng_state(state, device),
        )


def _event_to_dict(event: EpochEnded) -> dict[str, Any]:
    plain = {name: getattr(event, name) for name in event.__dataclass_fields__}
    return {**plain, "metrics": dict(event.metrics)}


def _optimizer_dict(optimizer: torch.optim.Optimizer | None) -> dict[str, Any] | None:
    if optimizer is None:
        return None
    state = optimizer.state_dict()
    return {**state, "state": {str(number): dict(v) for number, v in state["state"].items()}}


def _match_strides(optimizer: torch.optim.Optimizer) -> None:
    """Copy an optimizer's state into the memory format of its parameters.

    torch's fused kernels read parameter and state in memory order, ignoring strides.
    """
    for parameter, values in optimizer.state.items():
        for name, value in values.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                values[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _best_dict(best: BestCheckpoint) -> dict[str, Any]:
    metric = best.metric.state_dict() if best.metric is not None else None
    return {"score": best.score, "tensors": best.tensors, "metric": metric}


def _pack(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Return data for JSON, with tensors moved into `tensors` and replaced by references."""
    if isinstance(value, Tensor):
        tensors[path] = value
        return {"tensor": path}
    if isinstance(value, Mapping):
        return {str(key): _pack(item, f"{path}.{key}", tensors) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_pack(item, f"{path}.{n}", tensors) for n, item in enumerate(value)]
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    return value


def _unpack(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    """Invert `_pack`, except that tuples become lists."""
    if isinstance(value, Mapping):
        if value.keys() == {"tensor"}:
            return tensors[value["tensor"]]
        if value.keys() == {"float"}:
            return float(value["float"])
        return {key: _unpack(item, tensors) for key, item in value.items()}
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    return value
