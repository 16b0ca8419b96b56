"""A step that several processes take together, each on its part of the batch."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from zoo.engine.runtime.distributed import Ranks
from zoo.engine.training.sources import Source
from zoo.engine.training.state import TrainState
from zoo.engine.training.step import OnAdjustment, Step
from zoo.tasks.base import Criterion, Outputs

REHEARSALS = 2
# Batch norm's statistics are averaged before each validation, and not sent around in each step.
# Later versions of torch have another name for it.
_KNOWN = inspect.signature(DistributedDataParallel.__init__).parameters
_NAME = "forward_sync_buffers" if "forward_sync_buffers" in _KNOWN else "broadcast_buffers"
NO_BUFFERS: dict[str, Any] = {_NAME: False}


class DDPStep(Step):
    """Takes the steps of a phase together with other processes.

    The gradient is that of the mean over the whole batch, however it is divided among processes,
    since each part counts by its share. A process whose part is empty takes part with inputs of
    weight zero.

    torch exchanges gradients while they are computed, and then no step can begin anew. So the
    first steps are rehearsed without the others: where memory runs out, and the second time the
    optimizer's state is there too, micro-batches are halved before anything is exchanged; and what
    gets no gradient is known to torch from the first on.

    Args:
        source: runs the batches through the network.
        state: of the training.
        criterion: the user's own loss, a mean over samples; None for the task's.
        names: entries of the state dict that the phase can change.
        on_adjustment: called when the micro-batch size or the precision has to give way.
        ranks: this process among the others.
    """

    def __init__(
        self,
        source: Source,
        state: TrainState,
        criterion: Criterion | None,
        names: list[str],
        on_adjustment: OnAdjustment,
        ranks: Ranks,
    ) -> None:
        super().__init__(source, state, criterion, names, on_adjustment)
        self.network = source.network
        self.ranks = ranks
        self.parallel: DistributedDataParallel | None = None
        self.rehearsing = False
        self.rehearsals = 0
        self.idle = False

    def __call__(self, inputs: Any, targets: Tensor) -> Tensor:
        """Take a step, and return the loss of this process's samples, summed."""
        images = self.ranks.sum(len(targets))
        if not images:
            return torch.zeros((), device=targets.device)
        self.idle = not len(targets)
        if self.idle:
            inputs, targets = inputs.new_zeros((2, *inputs.shape[1:])), targets.new_zeros(2)
        rng = self._save()
        own = 0 if self.idle else self.network.task.count(targets)
        self.weight = own / max(self.ranks.sum(own), 1) * self.ranks.world
        if self.rehearsals < REHEARSALS:
            self._rehearse(inputs, targets, rng)
        mean = self._accumulate_gradients(inputs, targets)
        if self.idle:
            self._restore(rng)
        self.optimizer.step()
        return mean * (images / self.ranks.world)

    def _rehearse(self, inputs: Any, targets: Tensor, rng: list[Tensor]) -> None:
        """Find micro-batches that fit this process's memory, and what gets a gradient."""
        forwards, self.rehearsing = self.network.forwards, True
        try:
            self._attempt_until_it_fits(inputs, targets, rng)
        finally:
            self.rehearsing = False
        self._restore(rng)
        self.network.forwards = forwards
        if self.parallel is None:
            trained = [p for p in self.network.module.parameters() if p.requires_grad]
            unused = self.ranks.sum(sum(parameter.grad is None for parameter in trained))
            self.optimizer.zero_grad(set_to_none=True)
            self.parallel = DistributedDataParallel(
                self.network.module,
                find_unused_parameters=unused > 0,
                **NO_BUFFERS,
            )
        self.rehearsals += 1

    def _loss(self, outputs: Outputs, targets: Tensor) -> Tensor:
        if not self.idle:
            return super()._loss(outputs, targets)
        # It weighs nothing, and reaches what a loss would reach; targets are the task's business.
        several = [outputs.main, *(output for output, _ in outputs.auxiliary)]
        return torch.stack([output.float().sum() for output in several]).sum()

    def _forward(self, part: Any, last: bool) -> Outputs:
        # Only what goes through torch's wrapper is exchanged: once, with all that was summed up.
        exchange = last and not self.rehearsing
        return self.source.forward(part, through=self.parallel if exchange else None)
