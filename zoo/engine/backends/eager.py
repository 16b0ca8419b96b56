"""The engine `torch`: the network as it is, operation by operation."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.engine.backends.engine import Engine, Inputs
from zoo.engine.runtime.head_hooks import HeadHooks


class TorchEngine(Engine):
    """Runs the network in torch, and captures the inputs of its heads."""

    name = "torch"

    @staticmethod
    def version() -> str | None:
        """Return torch's version."""
        return torch.__version__.partition("+")[0]

    @classmethod
    def check(cls, device: torch.device) -> None:
        """Do nothing: torch computes every network."""

    def load(self, write: bool = True) -> None:
        """Do nothing."""

    @torch.no_grad()
    def compute(self, images: Tensor) -> Inputs:
        """Return the inputs of the heads by path."""
        network = self.network
        with network.lock, HeadHooks(network.module, network.paths) as hooks:
            # `train` takes milliseconds, for every batch.
            if any(part.training != self.training for part in network.module.modules()):
                network.module.train(self.training)
            network.forward(images, self.training, pad_to=self.batch)
        return {
            path: hooks.inputs[path][: len(images)]
            for path in network.paths
            if path in hooks.inputs
        }
