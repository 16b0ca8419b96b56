"""Run the heads on features, and check that they have the outputs of the whole network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from zoo.engine.runtime.head_hooks import HeadHooks as HeadHooks
from zoo.engine.runtime.network import Network
from zoo.tasks.base import Outputs


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
    network: Network, images: Tensor, modes: Sequence[bool] = (False, True)
) -> tuple[str | None, dict[str, Tensor]]:
    """Check on a batch that heads on features have the same outputs as the whole network.

    Compares outputs in eval and in training mode, since they do not follow from the structure.

    Args:
        network: frozen by the policy `head`, if it is checked in training mode.
        images: a batch of a few images.
        modes: to check, whether training.

    Returns:
        Why they differ, or None; and each head's input in the last mode, by path.
    """
    features: dict[str, Tensor] = {}
    reason = network.task.head_outputs_differ(network.heads)
    if reason is not None:
        return reason, features
    for training in modes:
        with network.lock, torch.no_grad(), HeadHooks(network.module, network.paths) as hooks:
            network.module.train(training)
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
