"""Training step: accumulate gradients over micro-batches, then run the optimizer."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from zoo.data.loader import batch_bounds
from zoo.engine.features.finite import not_finite_error
from zoo.engine.runtime.allocator import release_memory
from zoo.engine.training.snapshot import generators
from zoo.engine.training.sources import Source
from zoo.engine.training.state import TrainState
from zoo.errors import BrokenBackbone, EnvironmentProblem
from zoo.models.freeze import checking_frozen
from zoo.models.plugin_errors import is_out_of_memory
from zoo.tasks.base import Criterion, Outputs

# Called with the name of a value in the plan, its new value, and the reason.
OnAdjustment = Callable[[str, Any, str], None]


class Step:
    """Runs the steps of a phase.

    The loss of a batch is the mean over the units that its task counts, samples or pixels,
    independent of the number of micro-batches: each is weighted by its share. Batch norm computes
    its statistics per micro-batch.

    Args:
        source: runs the batches.
        state: of the training, with optimizer and micro-batch size; a remainder of one sample is
            added to the micro-batch before.
        criterion: the user's own loss, a mean over samples; None for the task's.
        names: entries of the state dict that the phase can change.
        on_adjustment: called when the micro-batch size or the precision changes.
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
        # In training mode, batch norm needs two samples if each has one value per channel.
        norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        self.min_size = 2 if norms else 1
        self.checked = False
        self.weight = 1.0

    def __call__(self, inputs: Any, targets: Tensor) -> Tensor:
        """Run a step, and return the sum of the losses of its samples.

        If memory runs out, restart with half the micro-batch size, from the same state of the
        random generators and of batch norm.

        Raises:
            EnvironmentProblem: memory runs out at the smallest micro-batch size.
            WeightsError, DataError: the first loss is not finite, whatever the learning rate.
        """
        mean = self._attempt_until_it_fits(inputs, targets, self._save())
        self.optimizer.step()
        return mean * len(targets)

    def _attempt_until_it_fits(self, inputs: Any, targets: Tensor, rng: list[Tensor]) -> Tensor:
        """Accumulate gradients in micro-batches that fit into memory, and return the loss."""
        try:
            while not isinstance(loss := self._attempt(inputs, targets), Tensor):
                self._halve_micro_batch(len(targets), loss)
                self._restore(rng)
            return loss
        except BrokenBackbone as error:
            # Only an error raised by the network itself has a cause.
            if self.checked or error.__cause__ is None or not self.source.network.leave_bf16():
                raise
            reason = f"the network fails in bf16: {error.message}"
        self.on_adjustment("precision", "fp32", reason)
        self._restore(rng)
        return self._attempt_until_it_fits(inputs, targets, rng)

    def _attempt(self, inputs: Any, targets: Tensor) -> Tensor | str:
        """Accumulate gradients, and return the loss, or the error message if memory ran out."""
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
            micro_batch = inputs if whole else _rows(inputs, first, last)
            first_batch = not self.checked
            with checking_frozen(self.source.module) if first_batch else nullcontext():
                outputs = self._forward(micro_batch, last == len(targets))
            if first_batch:
                _check_gradient(outputs)
                task.check_outputs(outputs)
                self.checked = True
            loss = self._loss(outputs, targets[first:last])
            if first_batch and not torch.isfinite(loss):
                self._check_layers(micro_batch)
            count: float = last - first
            total_count: float = len(targets)
            if not whole:
                count, total_count = self._count(targets[first:last]), self._count(targets) or 1
            share = self.weight * count / total_count
            if share != 1:
                loss = loss * share
            loss.backward()
            total = loss.detach() if total is None else total + loss.detach()
        assert total is not None
        return total

    def _check_layers(self, micro_batch: Any) -> None:
        """Check the layers of the network, before anything is updated.

        Raises:
            DataError: the inputs are not finite.
            WeightsError: a layer's output is not.
        """
        network = self.source.network
        subject = "the loss of the first batch is"
        run = partial(self.source.forward, micro_batch)
        if (error := not_finite_error(network, subject, run, micro_batch)) is not None:
            raise error

    def _count(self, targets: Tensor) -> float:
        """Return what the loss of some targets is divided by."""
        return self.source.network.task.loss_divisor(targets, self.criterion)

    def _forward(self, micro_batch: Any, last: bool) -> Outputs:
        """Return the outputs of a micro-batch; `last` if it is the last of its batch."""
        return self.source.forward(micro_batch)

    def _loss(self, outputs: Outputs, targets: Tensor) -> Tensor:
        """Return the loss of a micro-batch."""
        return _sum(self.source.network.task.loss(outputs, targets, self.criterion))

    def _save(self) -> list[Tensor]:
        """Save the state of batch norm, and return that of the random generators."""
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
            EnvironmentProblem: it is the smallest already.
        """
        self.optimizer.zero_grad(set_to_none=True)
        size = min(self.state.micro_batch_size, images)
        smaller = max(-(-size // 2), self.min_size)
        if smaller >= size:
            message = f"out of memory in training, with a micro-batch of {size}"
            hint = "give a smaller --input-size, or a smaller backbone"
            raise EnvironmentProblem(message, hint)
        release_memory(self.device)
        message = f"memory ran out with micro-batches of {self.state.micro_batch_size}"
        self.on_adjustment("micro_batch_size", smaller, message)
        self.state.micro_batch_size = smaller


def _check_gradient(outputs: Outputs) -> None:
    """Check that gradients can be computed.

    Raises:
        BrokenBackbone: no output depends on a parameter that trains.
    """
    if not any(
        each.requires_grad for each in (outputs.main, *(aux for aux, _ in outputs.auxiliary))
    ):
        message = "the output of the network has no gradient"
        hint = "its forward pass must call its heads, and must not disable gradients or detach"
        raise BrokenBackbone(message, hint)


def _sum(parts: dict[str, Tensor]) -> Tensor:
    """Return the sum of the parts of a loss, in order, which determines rounding."""
    first, *others = parts.values()
    for part in others:
        first = first + part
    return first


def _rows(inputs: Any, first: int, last: int) -> Any:
    """Slice a tensor, a list, or each value of a mapping."""
    if isinstance(inputs, (Tensor, list)):
        return inputs[first:last]
    return {name: rows[first:last] for name, rows in inputs.items()}
