"""The phase of the recipe `probe`: every head at its optimum on kept features."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from zoo.engine.features.cache import FeatureLearner, Kept
from zoo.engine.plan.plan import Phase
from zoo.engine.probe.logistic import Probe, fit_probe
from zoo.engine.runtime.network import Network
from zoo.engine.training.loop import Best
from zoo.events import EpochEnded


def why_no_optimum(network: Network) -> str | None:
    """Say why the heads of a network have no optimum that the probe finds; None where they do."""
    for path in network.paths:
        head = network.module.get_submodule(path)
        if not isinstance(head, (nn.Linear, nn.Conv2d)):
            return f"the head {path} is a {type(head).__name__}, not linear"
        if head.bias is None:
            return f"the head {path} has no bias"
    return None


class Columns:
    """Kept features of one head as a matrix `[rows, width]` that is read in slices.

    Args:
        kept: of the training split.
        path: of the head.
    """

    def __init__(self, kept: Kept, path: str) -> None:
        self.kept = kept
        self.path = path
        width = next(c.width for c in kept.shelf.columns if c.path == path)
        self.shape = (len(kept) * kept.views, width)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Tensor:
        """Return some rows, of a slice or of an array of their numbers."""
        return self.kept.column(self.path, rows)


def run_probe(
    phase: Phase,
    learner: FeatureLearner,
    best: Best,
    names: list[str],
    class_weight: Tensor | None,
    report: Callable[[EpochEnded], None],
) -> dict[str, Any]:
    """Bring every head to its optimum, and update the best.

    Args:
        phase: of the plan.
        learner: on kept features.
        best: takes the result.
        names: entries of the state dict that the heads are.
        class_weight: `[classes]`; None for all alike.
        report: told of the one epoch that this counts as.

    Returns:
        How the main head was found, for `run.json`.
    """
    began = time.perf_counter()
    network, kept = learner.network, learner.train
    labels = kept.labels.cpu().repeat_interleave(kept.views)
    found: list[Probe] = []
    for path in network.paths:
        if all(column.path != path for column in kept.shelf.columns):
            continue  # nothing arrives there
        probe = fit_probe(
            Columns(kept, path),
            labels,
            learner.task.classes,
            class_weight=class_weight,
            seed=learner.task.seed,
            views=kept.views,
            device=network.device,
        )
        _set(network.module.get_submodule(path), probe)
        found.append(probe)
    meter, train = learner.validate(), learner.measure(kept).summary()
    report(
        EpochEnded(
            phase=phase.name,
            epoch=1,
            epochs=1,
            lr=0.0,
            train_loss=train["loss"],
            metrics=meter.summary(),
            best=best.offer(meter, learner.module, names),
            seconds=time.perf_counter() - began,
        )
    )
    return _describe(found[0])


@torch.no_grad()
def _set(head: nn.Module, probe: Probe) -> None:
    assert isinstance(head, (nn.Linear, nn.Conv2d))
    assert head.bias is not None
    head.weight.copy_(probe.weight.reshape(head.weight.shape))
    head.bias.copy_(probe.bias)


def _describe(probe: Probe) -> dict[str, Any]:
    return {
        "strength": probe.strength,
        "reason": probe.reason,
        "accuracy": list(probe.accuracy),
        "searched": [
            {"strength": strength, "loss": loss, "accuracy": accuracy}
            for strength, loss, accuracy in probe.searched
        ],
        "converged": probe.converged,
        "iterations": probe.iterations,
    }
