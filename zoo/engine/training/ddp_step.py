"""Training step of several processes, each on its part of the batch."""

from __future__ import annotations

import inspect
import warnings
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
# Batch norm's statistics are averaged before each validation instead of broadcast in each step.
# Later versions of torch renamed the argument.
_ARGUMENTS = inspect.signature(DistributedDataParallel.__init__).parameters
_NAME = "forward_sync_buffers" if "forward_sync_buffers" in _ARGUMENTS else "broadcast_buffers"
NO_BUFFERS: dict[str, Any] = {_NAME: False}


class DDPStep(Step):
    """Runs the steps of a phase together with other processes.

    The gradient is that of the mean over the whole batch, however it is divided among processes:
    each part is weighted by its share. A process with an empty part contributes inputs of weight
    zero.

    DDP reduces gradients during the backward pass, after which a step cannot be restarted. So the
    first two steps are rehearsed without communication (the second with the optimizer's state
    allocated): if memory runs out, micro-batches are halved before any gradient is reduced. The
    rehearsal also shows which parameters get no gradient.

    Args:
        source: runs the batches.
        state: of the training.
        criterion: the user's own loss, a mean over samples; None for the task's.
        names: entries of the state dict that the phase can change.
        on_adjustment: called when the micro-batch size or the precision changes.
        ranks: of the processes that train together.
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
        """Run a step, and return the sum of the losses of this process's samples."""
        images = self.ranks.sum(len(targets))
        if not images:
            return torch.zeros((), device=targets.device)
        self.idle = not len(targets)
        if self.idle:
            inputs, targets = inputs.new_zeros((2, *inputs.shape[1:])), targets.new_zeros(2)
        rng = self._save()
        own = 0.0 if self.idle else float(self._count(targets))  # of one type in all processes
        self.weight = own / (self.ranks.sum(own) or 1) * self.ranks.world
        if self.rehearsals < REHEARSALS:
            self._rehearse(inputs, targets, rng)
        mean = self._accumulate_gradients(inputs, targets)
        if self.idle:
            self._restore(rng)
        self.optimizer.step()
        return mean * (images / self.ranks.world)

    def _rehearse(self, inputs: Any, targets: Tensor, rng: list[Tensor]) -> None:
        """Find a micro-batch size that fits this process's memory, and the parameters in use."""
        forwards, self.rehearsing = self.network.forwards, True
        try:
            self._attempt_until_it_fits(inputs, targets, rng)
        finally:
            self.rehearsing = False
        self.network.forwards = forwards
        if self.parallel is None:
            trained = [p for p in self.network.module.parameters() if p.requires_grad]
            unused = self.ranks.sum(sum(parameter.grad is None for parameter in trained))
            self.optimizer.zero_grad(set_to_none=True)
            # Of a 1x1 convolution in channels last: both strides are of the same memory.
            warnings.filterwarnings("ignore", message="Grad strides do not match bucket view")
            self.parallel = DistributedDataParallel(
                self.network.module,
                find_unused_parameters=unused > 0,
                **NO_BUFFERS,
            )
        # After DDP has copied the statistics of batch norm from rank 0.
        self._restore(rng)
        self.rehearsals += 1

    def _loss(self, outputs: Outputs, targets: Tensor) -> Tensor:
        if not self.idle:
            return super()._loss(outputs, targets)
        # Its weight is zero, but its graph reaches all outputs; a task may reject zero targets.
        parts = [outputs.main, *(output for output, _ in outputs.auxiliary)]
        return torch.stack([output.float().sum() for output in parts]).sum()

    def _forward(self, micro_batch: Any, last: bool) -> Outputs:
        # Only the last forward pass goes through DDP, which reduces the accumulated gradients once.
        reduce = last and not self.rehearsing
        return self.source.forward(micro_batch, through=self.parallel if reduce else None)
