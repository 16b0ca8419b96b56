"""A snapshot of a training's state: tensors and JSON, from which it continues exactly."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from zoo.engine.runtime.distributed import SINGLE, Ranks
from zoo.engine.runtime.network import Network
from zoo.engine.training.state import Adjustment, BestCheckpoint, TrainState
from zoo.events import EpochEnded
from zoo.tasks.base import Metric

Generator = tuple[Callable[[], Tensor], Callable[[Tensor], None]]

# Fields of `TrainState` that are data for JSON, and the same in all processes.
PLAIN = (
    "micro_batch_size",
    "phase",
    "epoch",
    "step",
    "batches",
    "waited",
    "ended",
    "earlier_epochs",
    "seconds",
    "probe",
    "duplicates",
    "stopped",
)


# Keys of a tensor, of a number that JSON lacks, and of a mapping that has no keys but these.
REFERENCES = {"tensor", "float", "mapping"}


@dataclass(frozen=True)
class Snapshot:
    """The state of a training.

    Args:
        tensors: by name, contiguous, on the CPU.
        plain: data for JSON, with references to the tensors.
    """

    tensors: dict[str, Tensor]
    plain: dict[str, Any]

    @classmethod
    def take(cls, state: TrainState, network: Network, ranks: Ranks = SINGLE) -> Snapshot:
        """Copy the state of a training.

        Args:
            state: of the training.
            network: that is trained.
            ranks: of the processes that share each batch; each takes a snapshot.
        """
        module = network.module.state_dict()
        values = {
            **{name: getattr(state, name) for name in PLAIN},
            "history": [_event_to_dict(event) for event in state.history],
            "adjustments": [asdict(each) for each in state.adjustments],
            "module": {name: module[name] for name in sorted(state.trained)},
            "optimizer": _optimizer_dict(state.optimizer),
            "best": _best_dict(state.best),
            "ranks": ranks.gather(_rank_dict(state, network, ranks)),
        }
        tensors: dict[str, Tensor] = {}
        plain = _pack(values, "", tensors)
        copies = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in tensors.items()
        }
        return cls(copies, plain)

    def restore(self, state: TrainState, network: Network, metric: Metric, rank: int = 0) -> None:
        """Restore network and state, except for optimizer and random generators.

        Args:
            state: a new one, changed in place.
            network: of the same structure, changed in place.
            metric: a new one of the task, for the state of the best epoch.
            rank: of this process.

        Raises:
            KeyError: the network has no tensor of a name.
            RuntimeError: a shape differs.
        """
        values = _unpack(self.plain, self.tensors)
        for name in PLAIN:
            setattr(state, name, values[name])
        state.history[:] = [EpochEnded(**event) for event in values["history"]]
        state.adjustments[:] = [Adjustment(**each) for each in values["adjustments"]]
        state.trained = set(values["module"])
        _copy(network, values["module"])
        best, device = values["best"], network.device
        state.best = BestCheckpoint()
        if best["score"] is not None:
            if best["metric"] is not None:
                metric.load_state_dict(best["metric"])
            moved = {name: tensor.to(device) for name, tensor in best["tensors"].items()}
            known = metric if best["metric"] is not None else None
            state.best = BestCheckpoint(tuple(best["score"]), moved, known)
        own = values["ranks"][rank] if rank < len(values["ranks"]) else {**values["ranks"][0]}
        _copy(network, own["buffers"])
        state.loss_sum, state.images = own["loss_sum"].to(device), own["images"]
        state.bad.update(own["bad"])
        state.incomplete.update(own["incomplete"])
        network.forwards += own["forwards"]

    def restore_optimizer(self, optimizer: torch.optim.Optimizer) -> None:
        """Restore the state of an optimizer over the same parameters, if there was one.

        Raises:
            ValueError: it has other parameters.
        """
        stored = _unpack(self.plain["optimizer"], self.tensors)
        if stored is not None:
            state = {int(number): values for number, values in stored["state"].items()}
            groups = optimizer.state_dict()["param_groups"]
            # Its settings are the plan's; the schedule sets the rate in each step.
            optimizer.load_state_dict({"state": state, "param_groups": groups})
            _match_strides(optimizer)

    def without_optimizer(self) -> Snapshot:
        """Return the snapshot without the state of the optimizer, for another one."""
        return replace(self, plain={**self.plain, "optimizer": None})

    def restore_generators(self, device: torch.device, rank: int = 0) -> None:
        """Restore the random generators of a process.

        Args:
            device: of the network.
            rank: of the process.
        """
        states = _unpack(self.plain["ranks"][rank]["generators"], self.tensors)
        for (_, put), stored in zip(generators(device), states, strict=True):
            put(stored)


def generators(device: torch.device) -> Iterator[Generator]:
    """Yield getter and setter of the state of each random generator that a network uses."""
    yield torch.get_rng_state, torch.set_rng_state
    if device.type != "cpu":
        module = torch.get_device_module(device)
        yield (
            lambda: module.get_rng_state(device),
            lambda state: module.set_rng_state(state, device),
        )


def _rank_dict(state: TrainState, network: Network, ranks: Ranks) -> dict[str, Any]:
    """Return what differs between processes."""
    buffers = network.module.named_buffers() if ranks.distributed else ()
    return {
        "generators": [get() for get, _ in generators(network.device)],
        "buffers": {name: tensor.cpu() for name, tensor in buffers if name in state.trained},
        "loss_sum": state.loss_sum.cpu(),
        "images": state.images,
        "bad": dict(state.bad),
        "incomplete": sorted(state.incomplete),
        "forwards": network.forwards,
    }


def _copy(network: Network, tensors: Mapping[str, Tensor]) -> None:
    own = network.module.state_dict()
    with torch.no_grad():
        for name, tensor in tensors.items():
            if own[name].shape != tensor.shape or own[name].dtype != tensor.dtype:
                raise RuntimeError(
                    f"{name} is {tensor.dtype} {list(tensor.shape)}, and that of the network "
                    f"{own[name].dtype} {list(own[name].shape)}"
                )
            own[name].copy_(tensor)


def _event_to_dict(event: EpochEnded) -> dict[str, Any]:
    plain = {name: getattr(event, name) for name in event.__dataclass_fields__}
    return {**plain, "metrics": dict(event.metrics)}


def _optimizer_dict(optimizer: torch.optim.Optimizer | None) -> dict[str, Any] | None:
    if optimizer is None:
        return None
    state = optimizer.state_dict()["state"]
    return {"state": {str(number): dict(values) for number, values in state.items()}}


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
    prefix = f"{path}." if path else ""
    if isinstance(value, Mapping):
        plain = {str(key): _pack(item, f"{prefix}{key}", tensors) for key, item in value.items()}
        return {"mapping": plain} if plain.keys() <= REFERENCES and plain else plain
    if isinstance(value, (list, tuple)):
        return [_pack(item, f"{prefix}{n}", tensors) for n, item in enumerate(value)]
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
        plain = value["mapping"] if value.keys() == {"mapping"} else value
        return {key: _unpack(item, tensors) for key, item in plain.items()}
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    return value
