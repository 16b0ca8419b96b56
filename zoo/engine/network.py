"""A network on its device: from pictures to logits, the same in training, evaluation and use."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from zoo.data.transforms import normalize
from zoo.engine.device import autocast, environment_error
from zoo.errors import BrokenBackbone
from zoo.models.guard import guard
from zoo.models.made import MADE, Made
from zoo.models.outputs import Logits, read_output
from zoo.spec import Head, Preprocess


class Network:
    """A module with all that its forward pass needs.

    Args:
        module: the network; moved to the device.
        heads: of its backbone.
        preprocess: whose mean and std are applied.
        device: where it computes.
        precision: `fp32`, or `bf16` for autocast.
    """

    def __init__(
        self,
        module: nn.Module,
        heads: Sequence[Head],
        preprocess: Preprocess,
        device: torch.device,
        precision: str,
    ) -> None:
        self.module = module.to(device)
        for tensor in [*module.parameters(), *module.buffers()]:
            if tensor.ndim == 4:  # only pictures have channels to put last
                tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
        self.heads = tuple(heads)
        self.preprocess = preprocess
        self.device = device
        self.precision = precision
        made = module.__dict__.get(MADE)
        self.classes_before = made.before if isinstance(made, Made) else None
        self.forwards = 0

    def logits(self, images: Tensor, training: bool = False) -> Logits:
        """Run a batch through the network.

        Args:
            images: `[images, channels, height, width]`: uint8, or floats that are normalized.
            training: whether further heads count to the loss; the modules' modes are the caller's.

        Returns:
            Logits on the network's device, differentiable where gradients are on.

        Raises:
            BrokenBackbone: the network fails, or gives something else than logits.
        """
        self.forwards += len(images)
        on_device = images.to(self.device, non_blocking=True)
        if on_device.dtype == torch.uint8:
            on_device = normalize(on_device, self.preprocess)
        inputs = on_device.contiguous(memory_format=torch.channels_last)
        with self._guarded(inputs), autocast(self.device, self.precision):
            output = self.module(inputs)
        return read_output(output, self.heads, training, self.classes_before)

    @contextlib.contextmanager
    def _guarded(self, inputs: Tensor) -> Iterator[None]:
        try:
            with guard(f"the network fails on a batch of {tuple(inputs.shape)}"):
                yield
        except BrokenBackbone as error:
            # torch raises the death of a worker in whatever the main process is doing.
            if error.__cause__ and (problem := environment_error(error.__cause__, "the network")):
                raise problem from error
            raise
