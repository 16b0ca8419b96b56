"""One step of training: a batch in as many parts as memory asks for, then the optimizer once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from zoo.data.loader import batch_bounds
from zoo.engine.runtime.allocator import make_room
from zoo.errors import EnvironmentProblem
from zoo.models.plugin_errors import is_out_of_memory
from zoo.tasks.classification.outputs import Logits, Loss, check_logits, classification_loss

if TYPE_CHECKING:
    from zoo.engine.training.loop import Learner


@dataclass
class Room:
    """How many images go through the network at once, in all phases of a training.

    Args:
        size: at most so many; a single one left over joins those before.
        tell: told of a smaller size, when memory ran out at a larger one.
    """

    size: int
    tell: Callable[[int], None]


class Step:
    """Takes the steps of a phase.

    The loss of a batch is the mean over its images, however many parts it goes through the network
    in: each part's counts by its share of the images. Batch norm sees one part at a time.

    Args:
        learner: what runs the batches.
        optimizer: over the parameters that train.
        loss: what is minimised, a mean over images.
        names: entries of the state dict that the phase can change.
        room: how many images go through the network at once.
    """

    def __init__(
        self,
        learner: Learner,
        optimizer: torch.optim.Optimizer,
        loss: Loss,
        names: list[str],
        room: Room,
    ) -> None:
        self.learner = learner
        self.optimizer = optimizer
        self.loss = loss
        self.room = room
        changing = set(names)
        module = learner.module
        self.buffers = [tensor for name, tensor in module.named_buffers() if name in changing]
        self.before = [tensor.clone() for tensor in self.buffers]
        self.device = next(module.parameters()).device
        # Batch norm that trains needs two images where it sees one value of each.
        norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        self.least = 2 if norms else 1
        self.checked = False
        self.weight = 1.0

    def __call__(self, inputs: Any, labels: Tensor) -> Tensor:
        """Take a step, and return the loss of its images, summed.

        Where memory runs out, it begins anew in parts of half the size, from the same state of the
        generators and of batch norm.

        Raises:
            EnvironmentProblem: memory runs out however small the parts are.
        """
        mean = self._fit(inputs, labels, self._remember())
        self.optimizer.step()
        return mean * len(labels)

    def _fit(self, inputs: Any, labels: Tensor, rng: list[Tensor]) -> Tensor:
        """Return the loss, its gradients in place, in parts that there is memory for."""
        while not isinstance(done := self._try(inputs, labels), Tensor):
            self._halve(len(labels), done)
            self._restore(rng)
        return done

    def _try(self, inputs: Any, labels: Tensor) -> Tensor | str:
        """Return the loss, its gradients in place; or what was said when memory ran out."""
        try:
            return self._forward_and_backward(inputs, labels)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            # Not the error itself, whose frames hold the memory.
            return str(error)

    def _forward_and_backward(self, inputs: Any, labels: Tensor) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        total = None
        for first, last in batch_bounds(len(labels), self.room.size):
            whole = last - first == len(labels)
            part = inputs if whole else _rows(inputs, first, last)
            said = self._said(part, last == len(labels))
            if not self.checked:
                check_logits(said.main)
                self.checked = True
            loss = classification_loss(said, labels[first:last], self.loss)
            share = self.weight * (last - first) / len(labels)
            if share != 1:
                loss = loss * share
            loss.backward()
            done = loss.detach()
            total = done if total is None else total + done
        assert total is not None
        return total

    def _said(self, part: Any, last: bool) -> Logits:
        """Run a part of a batch, which may be its last."""
        return self.learner.logits(part, training=True)

    def _remember(self) -> list[Tensor]:
        if self.buffers:
            torch._foreach_copy_(self.before, self.buffers)
        return [get() for get, _ in self._generators()]

    def _restore(self, rng: list[Tensor]) -> None:
        if self.buffers:
            torch._foreach_copy_(self.buffers, self.before)
        for (_, put), state in zip(self._generators(), rng, strict=True):
            put(state)

    def _generators(self) -> Iterator[tuple[Callable[[], Tensor], Callable[[Tensor], None]]]:
        yield torch.get_rng_state, torch.set_rng_state
        if self.device.type != "cpu":
            module, device = torch.get_device_module(self.device), self.device
            yield (
                lambda: module.get_rng_state(device),
                lambda state: module.set_rng_state(state, device),
            )

    def _halve(self, images: int, said: str) -> None:
        """Make the parts half as large.

        Raises:
            EnvironmentProblem: they cannot be smaller.
        """
        self.optimizer.zero_grad(set_to_none=True)
        size = min(self.room.size, images)
        smaller = max(-(-size // 2), self.least)
        if smaller >= size:
            message = f"out of memory in training, with {size} image{'s' * (size > 1)} at once"
            hint = "give a smaller --input-size, or a smaller backbone"
            raise EnvironmentProblem(message, hint)
        make_room(self.device)
        self.room.size = smaller
        self.room.tell(smaller)


def _rows(inputs: Any, first: int, last: int) -> Any:
    """Return some of a learner's inputs: of a tensor, or of each in a mapping."""
    if isinstance(inputs, Tensor):
        return inputs[first:last]
    return {name: rows[first:last] for name, rows in inputs.items()}
