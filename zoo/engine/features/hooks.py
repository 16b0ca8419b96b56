"""Forward hooks that capture head inputs and outputs; run the heads on captured features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from zoo.engine.runtime.network import Network
from zoo.tasks.base import Outputs


class HeadHooks:
    """Captures the input and the output of each head while the network runs.

    Args:
        module: the network.
        paths: module paths of the heads.

    Attributes:
        inputs: of each head that ran, by path; detached.
        outputs: of each head that ran, by path; detached.
    """

    def __init__(self, module: nn.Module, paths: Sequence[str]) -> None:
        self.inputs: dict[str, Tensor] = {}
        self.outputs: dict[str, Tensor] = {}
        heads = [(path, module.get_submodule(path)) for path in paths]
        self.handles = [
            handle
            for path, head in heads
            for handle in (
                head.register_forward_pre_hook(self._capture_input(path)),
                head.register_forward_hook(self._capture_output(path)),
            )
        ]

    def _capture_input(self, path: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def capture(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self.inputs[path] = inputs[0].detach()

        return capture

    def _capture_output(self, path: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def capture(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self.outputs[path] = output.detach()

        return capture

    def __enter__(self) -> HeadHooks:
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self.handles:
            handle.remove()


def run_heads(network: Network, features: Mapping[str, Tensor], training: bool) -> Outputs:
    """Run the heads on features, and combine their outputs as the network does.

    Args:
        network: whose heads.
        features: `[images, ...]` by head path.
        training: whether further heads count to the loss.
    """
    with network.computing():
        outputs = {
            path: network.module.get_submodule(path)(inputs) for path, inputs in features.items()
        }
    return combine_heads(network, outputs, training)


def combine_heads(network: Network, outputs: Mapping[str, Tensor], training: bool) -> Outputs:
    """Combine the heads' outputs, by path in any order, as the network combines them."""
    pairs = dict(zip(network.paths, network.heads, strict=True))
    ordered = {path: (head, outputs[path]) for path, head in pairs.items() if path in outputs}
    size = (network.preprocess.height, network.preprocess.width)
    return network.task.combine_heads(ordered, size, training)


def check_head_equivalence(
    network: Network, images: Tensor
) -> tuple[str | None, dict[str, Tensor]]:
    """Check on a batch that heads on features give what the whole network gives.

    Both in eval mode and as in training: tested, and not assumed from the structure.

    Args:
        network: frozen by the policy `head`.
        images: a few, as the network takes them.

    Returns:
        Why they differ, None where they do not; and each head's input in training, by path.
    """
    features: dict[str, Tensor] = {}
    reason = network.task.head_outputs_differ(network.heads)
    if reason is not None:
        return reason, features
    for training in (False, True):
        network.module.train(training)
        with torch.no_grad(), HeadHooks(network.module, network.paths) as hooks:
            whole = network.forward(images, training)
            features = {path: hooks.inputs[path] for path in network.paths if path in hooks.inputs}
            if network.paths[0] not in features:
                return "nothing arrives at the head", features
            # In training a head may drop some of its features, never the same twice.
            if training:
                alone = combine_heads(network, hooks.outputs, training)
            else:
                alone = run_heads(network, features, training)
        if (reason := _difference(whole, alone)) is not None:
            return reason, features
    return None, features


def _difference(whole: Outputs, alone: Outputs) -> str | None:
    if len(whole.auxiliary) != len(alone.auxiliary):
        return "the heads alone give other outputs than the network"
    pairs = [(whole.main, alone.main)]
    pairs += [(a, b) for (a, _), (b, _) in zip(whole.auxiliary, alone.auxiliary, strict=True)]
    for expected, found in pairs:
        if expected.shape != found.shape or not torch.allclose(
            expected.float(), found.float(), rtol=1e-4, atol=1e-4
        ):
            return "the network does more after its head"
    return None
