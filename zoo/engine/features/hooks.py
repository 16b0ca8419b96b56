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
        network: with the heads.
        features: `[images, ...]` by head path.
        training: whether auxiliary heads contribute to the loss.
    """
    with network.computing():
        outputs = {
            path: network.module.get_submodule(path)(inputs) for path, inputs in features.items()
        }
    return combine_heads(network, outputs, training)


def combine_heads(network: Network, outputs: Mapping[str, Tensor], training: bool) -> Outputs:
    """Combine the heads' outputs, by path in any order, as the network does."""
    pairs = dict(zip(network.paths, network.heads, strict=True))
    ordered = {path: (head, outputs[path]) for path, head in pairs.items() if path in outputs}
    size = (network.preprocess.height, network.preprocess.width)
    return network.task.combine_heads(ordered, size, training)


def check_head_equivalence(
    network: Network, images: Tensor
) -> tuple[str | None, dict[str, Tensor]]:
    """Check on a batch that heads on features have the same outputs as the whole network.

    Compares outputs in eval and in training mode, since they do not follow from the structure.

    Args:
        network: frozen by the policy `head`.
        images: a batch of a few images.

    Returns:
        Why they differ, or None; and each head's input in training mode, by path.
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
            # In training, dropout in a head is random: compare its captured outputs.
            if training:
                combined = combine_heads(network, hooks.outputs, training)
            else:
                combined = run_heads(network, features, training)
        if (reason := _difference(whole, combined)) is not None:
            return reason, features
    return None, features


def _difference(whole: Outputs, heads: Outputs) -> str | None:
    if len(whole.auxiliary) != len(heads.auxiliary):
        return "the heads alone give other outputs than the network"
    pairs = [(whole.main, heads.main)]
    pairs += [(a, b) for (a, _), (b, _) in zip(whole.auxiliary, heads.auxiliary, strict=True)]
    for expected, actual in pairs:
        if expected.shape != actual.shape or not torch.allclose(
            expected.float(), actual.float(), rtol=1e-4, atol=1e-4
        ):
            return "the network does more after its head"
    return None
