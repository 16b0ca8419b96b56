"""A network on its device: from pictures to logits, the same in training, evaluation and use."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from zoo.data.transforms import normalize
from zoo.engine.device import autocast, environment_error
from zoo.errors import BrokenBackbone, ZooError
from zoo.models.outputs import Logits, read_output
from zoo.plugins import one_line
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
        self.module = module.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.heads = tuple(heads)
        self.preprocess = preprocess
        self.device = device
        self.precision = precision
        self.forwards = 0

    def logits(self, images: Tensor, training: bool = False) -> Logits:
        """Run a batch through the network.

        Args:
            images: `[images, 3, height, width]`, uint8.
            training: whether further heads count to the loss; the modules' modes are the caller's.

        Returns:
            Logits on the network's device, differentiable where gradients are on.

        Raises:
            BrokenBackbone: the network fails, or gives something else than logits.
        """
        self.forwards += len(images)
        on_device = images.to(self.device, non_blocking=True)
        inputs = normalize(on_device, self.preprocess).contiguous(memory_format=torch.channels_last)
        try:
            with autocast(self.device, self.precision):
                output = self.module(inputs)
        except ZooError:
            raise
        except Exception as error:
            if environment_error(error, "the network"):
                raise
            shape = tuple(inputs.shape)
            message = f"the network fails on a batch of {shape}: {one_line(error)}"
            raise BrokenBackbone(message, "--debug shows where") from error
        return read_output(output, self.heads, training)
