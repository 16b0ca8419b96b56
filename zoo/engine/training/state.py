"""Mutable state of a training, in one object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from zoo.engine.probe.search import HeldOut
from zoo.events import EpochEnded
from zoo.tasks.base import Metric, Ranking


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
        updates: times that a better epoch replaced it in this process.
    """

    score: tuple[float, ...] | None = None
    tensors: dict[str, Tensor] | None = None
    metric: Metric | None = None
    updates: int = field(default=0, compare=False)

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
        self.updates += 1
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
        step: steps taken in the epoch; 0 between epochs.
        batches: batches read in the epoch; some may have no readable image.
        loss_sum: sum of the losses of the epoch's images in this process, a scalar.
        images: number of them.
        waited: epochs of the phase since the best one.
        ended: whether the phase ended before its last epoch.
        earlier_epochs: epochs of earlier phases.
        seconds: wall time of the training before this process resumed it.
        optimizer: of the current phase; None before its first epoch.
        trained: entries of the state dict that a phase up to the current one can change.
        best: checkpoint of the best epoch.
        history: all epochs.
        adjustments: changes to the plan, in order.
        bad: reasons by path of the unreadable images that this process skipped.
        incomplete: paths of the files that lack their last bytes.
        probe: report on a solved head for `run.json`; None without one.
        held_out: predictions of training images by a solved head that did not see them, until
            another phase trains; not part of a checkpoint.
        similar: by split images that look like one of `train`, see `similar_images`; not part of a
            checkpoint.
        growth: accuracies of heads fitted on fewer images, see `accuracy_by_images`; likewise.
        duplicates: images with equal content, for `run.json`; None before they are read.
        stopped: why a plugin stopped the training; None where none did.
    """

    micro_batch_size: int
    phase: int = 0
    epoch: int = 0
    step: int = 0
    batches: int = 0
    loss_sum: Tensor = field(default_factory=lambda: torch.zeros(()))
    images: int = 0
    waited: int = 0
    ended: bool = False
    earlier_epochs: int = 0
    seconds: float = 0.0
    optimizer: torch.optim.Optimizer | None = None
    trained: set[str] = field(default_factory=set)
    best: BestCheckpoint = field(default_factory=BestCheckpoint)
    history: list[EpochEnded] = field(default_factory=list)
    adjustments: list[Adjustment] = field(default_factory=list)
    bad: dict[str, str] = field(default_factory=dict)
    incomplete: set[str] = field(default_factory=set)
    probe: dict[str, Any] | None = None
    held_out: HeldOut | None = None
    similar: dict[str, list[tuple[int, int, float]]] = field(default_factory=dict)
    growth: list[tuple[int, tuple[float, ...]]] = field(default_factory=list)
    duplicates: dict[str, Any] | None = None
    stopped: str | None = None

    @property
    def total_epoch(self) -> int:
        """The current epoch, counted from 1 over all phases."""
        return self.earlier_epochs + self.epoch

    def start_phase(self, phase: int) -> None:
        """Reset the counters for a phase."""
        self.phase, self.epoch, self.optimizer = phase, 0, None
        self.waited, self.ended = 0, False
        self.end_epoch()

    def start_epoch(self, device: torch.device) -> None:
        """Start to count the next epoch."""
        self.epoch += 1
        self.end_epoch()
        self.loss_sum = self.loss_sum.to(device)

    def restart_epoch(self) -> None:
        """Discard the steps of an unfinished epoch, though not what they changed."""
        if self.step:
            self.epoch -= 1
            self.end_epoch()

    def end_epoch(self) -> None:
        """Reset the counters of an epoch."""
        self.step, self.batches, self.images = 0, 0, 0
        self.loss_sum = torch.zeros(())

    def adjust(self, name: str, value: Any, reason: str) -> None:
        """Record an adjustment in the current phase and epoch."""
        self.adjustments.append(Adjustment(name, value, reason, self.phase, self.epoch))

    def adjusted(self, name: str, planned: Any) -> Any:
        """Return the last value that a name of the plan was adjusted to, or the planned one."""
        values = [each.value for each in self.adjustments if each.name == name]
        return values[-1] if values else planned
