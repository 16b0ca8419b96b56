"""Outputs of a network, their loss terms, and the base class of metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

# Whether a higher or a lower value of a metric is better.
Direction = Literal["max", "min"]


@dataclass(frozen=True)
class Outputs:
    """The outputs of a network, by head.

    Args:
        main: `[samples, ...]`, used for loss and predictions.
        auxiliary: outputs of auxiliary heads with their loss weights, used for the loss only.
    """

    main: Tensor
    auxiliary: tuple[tuple[Tensor, float], ...] = field(default=())

    def narrow(self, count: int) -> Outputs:
        """Return the outputs of the first `count` samples."""
        auxiliary = tuple((each[:count], weight) for each, weight in self.auxiliary)
        return Outputs(self.main[:count], auxiliary)


class SampleResults:
    """Results of single samples of a split, for the report of a training.

    In a split with more than `LIMIT` samples, every n-th is recorded.

    Args:
        samples: number of samples of the split.
    """

    LIMIT = 20_000

    def __init__(self, samples: int) -> None:
        self.stride = max(-(-samples // self.LIMIT), 1)
        self.parts: list[dict[str, Tensor]] = []

    def add(self, indices: Tensor, values: Mapping[str, Tensor]) -> None:
        """Record a batch.

        Args:
            indices: `[samples]`, positions in the split.
            values: `[samples, ...]` by name, of `BaseTask.sample_results`; empty to record nothing.
        """
        if values:
            chosen = indices % self.stride == 0
            own = {name: each[chosen.to(each.device)] for name, each in values.items()}
            self.parts.append({"index": indices[chosen], **own})

    def tensors(self) -> dict[str, Tensor]:
        """Return the values by name on the CPU, in the order of the split, and their `index`."""
        if not self.parts:
            return {}
        joined = {
            name: torch.cat([part[name].cpu() for part in self.parts]) for name in self.parts[0]
        }
        order = joined["index"].argsort(stable=True)
        return {name: each[order] for name, each in joined.items()}


def loss_sum(device: torch.device) -> Tensor:
    """Return a float64 zero to add losses to; on the CPU for MPS, which has no float64."""
    exact = torch.device("cpu") if device.type == "mps" else device
    return torch.zeros((), dtype=torch.float64, device=exact)


class Metric(ABC):
    """A metric of a split: accumulated over batches, merged over processes, computed at the end.

    All state is in `sums` and `rows`, so that the result depends neither on the batch size nor on
    the number of processes.

    Attributes:
        sums: tensors by name, summed over processes.
        rows: lists of plain data or CPU tensors by name, concatenated over processes.
        samples: results of single samples, where they are recorded; concatenated too.
    """

    samples: SampleResults | None = None

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.rows: dict[str, list[Any]] = {}

    @abstractmethod
    def update(self, outputs: Outputs, targets: Tensor) -> None:
        """Accumulate a batch."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Return the values over all batches, `loss` and `images` included."""

    def score(self, values: Mapping[str, float]) -> tuple[float, ...]:
        """Return the score that ranks epochs (higher is better) from the values of `compute`."""
        return (-values["loss"],)

    def report(self) -> dict[str, Any]:
        """Return the values of `compute` and details, as plain data for `run.json`."""
        return dict(self.compute())

    def merge(self, other: Metric) -> None:
        """Add the state of another metric of the same class."""
        for name, tensor in other.sums.items():
            self.sums[name] += tensor.to(self.sums[name].device)
        for name, items in other.rows.items():
            self.rows[name].extend(items)
        if self.samples is not None and other.samples is not None:
            self.samples.parts.extend(other.samples.parts)

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of the state, for a checkpoint."""
        sums = {name: tensor.clone() for name, tensor in self.sums.items()}
        state = {"sums": sums, "rows": {name: list(items) for name, items in self.rows.items()}}
        recorded = {} if self.samples is None else self.samples.tensors()
        return {**state, "samples": recorded} if recorded else state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a state returned by `state_dict`."""
        for name, tensor in state["sums"].items():
            self.sums[name].copy_(tensor)
        self.rows = {name: list(items) for name, items in state["rows"].items()}
        if recorded := state.get("samples"):
            self.samples = SampleResults(len(recorded["index"]))
            self.samples.parts = [dict(recorded)]


@dataclass(frozen=True)
class Ranking:
    """A metric that ranks epochs, and the penalties of a probe, in place of `Metric.score`.

    Args:
        name: of a value of `Metric.compute`.
        direction: whether a higher or a lower value is better.
    """

    name: str
    direction: Direction

    def score(self, values: Mapping[str, float]) -> tuple[float, ...]:
        """Return the score (higher is better): the metric, then the loss."""
        value = values[self.name]
        return (value if self.direction == "max" else -value), -values["loss"]


def loss_parts(
    outputs: Outputs, targets: Tensor, loss: Callable[[Tensor, Tensor], Tensor]
) -> dict[str, Tensor]:
    """Return the loss of the main output, and the weighted losses of auxiliary outputs, by name.

    Args:
        outputs: of the network.
        targets: of the batch.
        loss: loss function of one output.
    """
    parts = {"main": loss(outputs.main, targets)}
    for number, (output, weight) in enumerate(outputs.auxiliary, start=1):
        parts[f"auxiliary{number}"] = weight * loss(output, targets)
    return parts
