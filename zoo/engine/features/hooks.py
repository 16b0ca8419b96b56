"""Between the frozen part of a network and its heads: what passes there, and the heads alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from zoo.engine.runtime.network import Network
from zoo.tasks.classification.outputs import Logits


class Tap:
    """Takes what enters and what leaves each head as the network runs."""

    def __init__(self, module: nn.Module, paths: Sequence[str]) -> None:
        self.seen: dict[str, Tensor] = {}
        self.said: dict[str, Tensor] = {}
        heads = [(path, module.get_submodule(path)) for path in paths]
        self.handles = [
            handle
            for path, head in heads
            for handle in (
                head.register_forward_pre_hook(self._entering(path)),
                head.register_forward_hook(self._leaving(path)),
            )
        ]

    def _entering(self, path: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def take(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            self.seen[path] = inputs[0].detach()

        return take

    def _leaving(self, path: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def take(_: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            self.said[path] = output.detach()

        return take

    def __enter__(self) -> Tap:
        return self

    def __exit__(self, *exception: object) -> None:
        for handle in self.handles:
            handle.remove()


def heads_alone(network: Network, features: dict[str, Tensor], training: bool) -> Logits:
    """Run the heads on features."""
    with network.computing():
        said = {
            path: network.module.get_submodule(path)(inputs) for path, inputs in features.items()
        }
    return _logits_of(network, said, training)


def _logits_of(network: Network, said: dict[str, Tensor], training: bool) -> Logits:
    """Return what the heads said, by path in any order, as what the network says."""
    paths = dict(zip(network.paths, network.heads, strict=True))
    (_, main), *others = [(head, said[path]) for path, head in paths.items() if path in said]
    extra = tuple((logits, head.loss_weight) for head, logits in others) if training else ()
    return Logits(main, extra)


def try_heads(network: Network, images: Tensor) -> tuple[str | None, dict[str, Tensor]]:
    """Say why heads on kept features do not give what the network gives; None where they do.

    It is proven on a batch, in eval mode and as in training, and not assumed from a structure.

    Args:
        network: frozen by the policy `head`.
        images: some, as the network takes them.

    Returns:
        The reason, and what arrived at each head, by path, as in training.
    """
    seen: dict[str, Tensor] = {}
    if any(head.role == "distill" for head in network.heads):
        return "the network combines its heads in evaluation", seen
    for training in (False, True):
        network.module.train(training)
        with torch.no_grad(), Tap(network.module, network.paths) as tap:
            whole = network.logits(images, training)
            seen = {path: tap.seen[path] for path in network.paths if path in tap.seen}
            if network.paths[0] not in seen:
                return "nothing arrives at the head", seen
            # In training a head may drop some of its features, never the same twice.
            said = _logits_of(network, tap.said, training)
            alone = said if training else heads_alone(network, seen, training)
        if (reason := _differ(whole, alone)) is not None:
            return reason, seen
    return None, seen


def _differ(whole: Logits, alone: Logits) -> str | None:
    if len(whole.extra) != len(alone.extra):
        return "the heads alone give other outputs than the network"
    pairs = [(whole.main, alone.main)]
    pairs += [(a, b) for (a, _), (b, _) in zip(whole.extra, alone.extra, strict=True)]
    for expected, found in pairs:
        if expected.shape != found.shape or not torch.allclose(
            expected.float(), found.float(), rtol=1e-4, atol=1e-4
        ):
            return "the network does more after its head"
    return None
