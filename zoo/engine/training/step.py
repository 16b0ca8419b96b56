"""One step of training: a batch in as many parts as memory asks for, then the optimizer once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from zoo.data.loader import batch_bounds
from zoo.engine.runtime.allocator import release_memory
from zoo.engine.training.sources import Source
from zoo.engine.training.state import TrainState, generators
from zoo.errors import BrokenBackbone, EnvironmentProblem
from zoo.models.plugin_errors import is_out_of_memory
from zoo.tasks.base import Criterion, Outputs

# Called with the name of a value in the plan, what replaces it, and why.
OnAdjustment = Callable[[str, Any, str], None]


class Step:
    """Takes the steps of a phase.

    The loss of a batch is the mean over what its task counts, samples or pixels, however many
    micro-batches it goes through the network in: each counts by its share. Batch norm sees one at
    a time.

    Args:
        source: runs the batches.
        state: whose optimizer steps and whose micro-batch size holds; a single sample left over
            joins the micro-batch before.
        criterion: the user's own loss, a mean over samples; None for the task's.
        names: entries of the state dict that the phase can change.
        on_adjustment: called when the micro-batch size or the precision has to give way.
    """

    def __init__(
        self,
        source: Source,
        state: TrainState,
        criterion: Criterion | None,
        names: list[str],
        on_adjustment: OnAdjustment,
    ) -> None:
        assert state.optimizer is not None
        self.source = source
        self.state = state
        self.optimizer = state.optimizer
        self.criterion = criterion
        self.on_adjustment = on_adjustment
        changing = set(names)
        module = source.module
        self.buffers = [tensor for name, tensor in module.named_buffers() if name in changing]
        self.saved_buffers = [tensor.clone() for tensor in self.buffers]
        self.device = next(module.parameters()).device
        # Batch norm that trains needs two samples where it sees one value of each.
        norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        self.min_size = 2 if norms else 1
        self.checked = False
        self.weight = 1.0

    def __call__(self, inputs: Any, targets: Tensor) -> Tensor:
        """Take a step, and return the loss of its samples, summed.

        Where memory runs out, it begins anew in micro-batches of half the size, from the same
        state of the generators and of batch norm.

        Raises:
            EnvironmentProblem: memory runs out however small the micro-batches are.
        """
        mean = self._attempt_until_it_fits(inputs, targets, self._save())
        self.optimizer.step()
        return mean * len(targets)

    def _attempt_until_it_fits(self, inputs: Any, targets: Tensor, rng: list[Tensor]) -> Tensor:
        """Return the loss, gradients accumulated, in micro-batches that fit into memory."""
        try:
            while not isinstance(loss := self._attempt(inputs, targets), Tensor):
                self._halve_micro_batch(len(targets), loss)
                self._restore(rng)
            return loss
        except BrokenBackbone as error:
            # Only what the network itself raised has a cause.
            if self.checked or error.__cause__ is None or not self.source.network.leave_bf16():
                raise
            reason = f"the network fails in bf16: {error.message}"
        self.on_adjustment("precision", "fp32", reason)
        self._restore(rng)
        return self._attempt_until_it_fits(inputs, targets, rng)

    def _attempt(self, inputs: Any, targets: Tensor) -> Tensor | str:
        """Return the loss, gradients accumulated; or the error's text when memory ran out."""
        try:
            return self._accumulate_gradients(inputs, targets)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            # Not the error itself, whose frames reference the memory.
            return str(error)

    def _accumulate_gradients(self, inputs: Any, targets: Tensor) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        task, total = self.source.network.task, None
        for first, last in batch_bounds(len(targets), self.state.micro_batch_size):
            whole = last - first == len(targets)
            part = inputs if whole else _rows(inputs, first, last)
            outputs = self._forward(part, last == len(targets))
            if not self.checked:
                task.check_outputs(outputs)
                self.checked = True
            loss = self._loss(outputs, targets[first:last])
            counted, every = last - first, len(targets)
            if not whole:
                counted, every = task.count(targets[first:last]), max(task.count(targets), 1)
            share = self.weight * counted / every
            if share != 1:
                loss = loss * share
            loss.backward()
            done = loss.detach()
            total = done if total is None else total + done
        assert total is not None
        return total

    def _forward(self, part: Any, last: bool) -> Outputs:
        """Run a micro-batch, which may be the last of its batch."""
        return self.source.forward(part)

    def _loss(self, outputs: Outputs, targets: Tensor) -> Tensor:
        """Return the loss of a micro-batch."""
        return _sum(self.source.network.task.loss(outputs, targets, self.criterion))

    def _save(self) -> list[Tensor]:
        """Save the state of batch norm, and return that of the generators."""
        if self.buffers:
            torch._foreach_copy_(self.saved_buffers, self.buffers)
        return [get() for get, _ in generators(self.device)]

    def _restore(self, rng: list[Tensor]) -> None:
        if self.buffers:
            torch._foreach_copy_(self.buffers, self.saved_buffers)
        for (_, put), state in zip(generators(self.device), rng, strict=True):
            put(state)

    def _halve_micro_batch(self, images: int, reason: str) -> None:
        """Halve the micro-batch size.

        Raises:
            EnvironmentProblem: it cannot be smaller.
        """
        self.optimizer.zero_grad(set_to_none=True)
        size = min(self.state.micro_batch_size, images)
        smaller = max(-(-size // 2), self.min_size)
        if smaller >= size:
            message = f"out of memory in training, with {size} image{'s' * (size > 1)} at once"
            hint = "give a smaller --input-size, or a smaller backbone"
            raise EnvironmentProblem(message, hint)
        release_memory(self.device)
        message = f"memory ran out with {self.state.micro_batch_size} images at once"
        self.on_adjustment("micro_batch_size", smaller, message)
        self.state.micro_batch_size = smaller


def _sum(parts: dict[str, Tensor]) -> Tensor:
    """Return the sum of the parts of a loss, in their order."""
    first, *others = parts.values()
    for part in others:
        first = first + part
    return first


def _rows(inputs: Any, first: int, last: int) -> Any:
    """Return some rows of a tensor, a list, or each entry of a mapping."""
    if isinstance(inputs, (Tensor, list)):
        return inputs[first:last]
    return {name: rows[first:last] for name, rows in inputs.items()}
