"""The body of a network, from normalized images to the inputs of its heads, as one module."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from zoo.engine.runtime.digests import digest_modules, digest_tensors
from zoo.engine.runtime.head_hooks import HeadHooks
from zoo.engine.runtime.network import Network
from zoo.models.provenance import provenance_of
from zoo.records import to_dict


class Body(nn.Module):
    """Returns the inputs of the heads that run, in the order of their paths.

    Args:
        network: whose module runs in the mode that it is in.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.module = network.module
        self.paths = network.paths

    def train(self, mode: bool = True) -> Body:
        """Leave the modes as they are: libraries that trace a module put it in eval mode."""
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Return the inputs of the heads.

        Args:
            images: `[images, channels, height, width]`, normalized.
        """
        with HeadHooks(self.module, self.paths) as hooks:
            self.module(images)
        return tuple(hooks.inputs[path] for path in self.paths if path in hooks.inputs)


@contextlib.contextmanager
def mode_of(module: nn.Module, training: bool) -> Iterator[None]:
    """Put a network in a mode in the block, and restore that of every module."""
    modes = {part: part.training for part in module.modules()}
    module.train(training)
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode


def describe_body(network: Network, training: bool) -> dict[str, object]:
    """Return everything that determines the body of a network, independent of its precision."""
    heads = tuple(f"{path}." for path in network.paths)
    preprocess = to_dict(network.preprocess)
    return {
        "backbone": provenance_of(network.module).backbone.id,
        "heads": network.paths,
        "training": training,
        "weights": digest_tensors(network.module, heads),
        "modules": digest_modules(network.module, heads),
        "size": [network.preprocess.channels, preprocess["size"]],
    }
