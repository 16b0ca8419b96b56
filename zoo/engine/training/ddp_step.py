"""A step that several processes take together, each on its part of the batch."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from zoo.engine.runtime.distributed import Ranks
from zoo.engine.training.sources import PictureLearner
from zoo.engine.training.step import Room, Step
from zoo.tasks.classification.outputs import Loss

REHEARSALS = 2
# Batch norm's statistics are averaged before each validation, and not sent around in each step.
# Later versions of torch have another name for it.
_KNOWN = inspect.signature(DistributedDataParallel.__init__).parameters
_NAME = "forward_sync_buffers" if "forward_sync_buffers" in _KNOWN else "broadcast_buffers"
NO_BUFFERS: dict[str, Any] = {_NAME: False}


class SharedStep(Step):
    """Takes the steps of a phase together with other processes.

    The gradient is that of the mean over the whole batch, however it falls to the processes, since
    each part counts by its share. A process with nothing to read takes part with pictures that
    count nothing.

    torch exchanges gradients while they are computed, and then no step can begin anew. So the first
    steps are rehearsed without the others: where memory runs out, and the second time the
    optimizer's state is there too, the parts are halved before anything is exchanged; and what gets
    no gradient is known to torch from the first on.

    Args:
        learner: what runs the batches.
        optimizer: over the parameters that train.
        loss: what is minimised, a mean over images.
        names: entries of the state dict that the phase can change.
        room: how many images go through the network at once.
        ranks: this process among the others.
    """

    def __init__(
        self,
        learner: PictureLearner,
        optimizer: torch.optim.Optimizer,
        loss: Loss,
        names: list[str],
        room: Room,
        ranks: Ranks,
    ) -> None:
        super().__init__(learner, optimizer, loss, names, room)
        self.network = learner.network
        self.ranks = ranks
        self.parallel: DistributedDataParallel | None = None
        self.rehearsals = 0
        self.images = 0

    def __call__(self, inputs: Any, labels: Tensor) -> Tensor:
        """Take a step, and return the loss of this process's images, summed."""
        self.images = self.ranks.sum(len(labels))
        if not self.images:
            return torch.zeros((), device=labels.device)
        idle = not len(labels)
        if idle:
            inputs, labels = inputs.new_zeros((2, *inputs.shape[1:])), labels.new_zeros(2)
        rng = self._remember()
        self.weight = 0.0 if idle else len(labels) / self.images * self.ranks.world
        if self.rehearsals < REHEARSALS:
            self._rehearse(inputs, labels, rng)
        mean = self._forward_and_backward(inputs, labels)
        if idle:
            self._restore(rng)
        self.optimizer.step()
        return mean * (self.images / self.ranks.world)

    def _rehearse(self, inputs: Any, labels: Tensor, rng: list[Tensor]) -> None:
        """Find out in what parts this process's images fit, and what gets a gradient."""
        parallel, self.parallel = self.parallel, None
        forwards = self.network.forwards
        self._fit(inputs, labels, rng)
        self._restore(rng)
        self.network.forwards = forwards
        if parallel is None:
            trained = [p for p in self.network.module.parameters() if p.requires_grad]
            unused = self.ranks.sum(sum(parameter.grad is None for parameter in trained))
            self.optimizer.zero_grad(set_to_none=True)
            parallel = DistributedDataParallel(
                self.network.module,
                find_unused_parameters=unused > 0,
                **NO_BUFFERS,
            )
        self.parallel = parallel
        self.rehearsals += 1

    def _said(self, part: Any, last: bool) -> Any:
        # Only what goes through torch's wrapper is exchanged: once, with all that was summed up.
        if not last or self.parallel is None:
            return super()._said(part, last)
        self.network.through = self.parallel
        try:
            return super()._said(part, last)
        finally:
            self.network.through = self.network.module
