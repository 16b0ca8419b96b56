"""The recipe `probe`: fit every head to its optimum on cached features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from zoo.engine.features.cache import FeatureSet
from zoo.engine.probe.logistic import Probe, fit_probe
from zoo.engine.probe.search import HeldOut, HeldOutScore
from zoo.engine.runtime.network import Network
from zoo.tasks.base import LogisticProbe, Metric, Outputs, Ranking


def probe_conflict(network: Network) -> str | None:
    """Return why a network's heads cannot be fitted by a linear probe; None where they can."""
    for path in network.paths:
        head = network.module.get_submodule(path)
        if not isinstance(head, (nn.Linear, nn.Conv2d)):
            return f"the head {path} is a {type(head).__name__}, not linear"
        if head.bias is None:
            return f"the head {path} has no bias"
    return None


class FeatureColumn:
    """Cached features of one head as a matrix `[rows, width]`, read in slices.

    Args:
        features: of the training split.
        path: of the head.
    """

    def __init__(self, features: FeatureSet, path: str) -> None:
        self.features = features
        self.path = path
        width = next(c.width for c in features.store.columns if c.path == path)
        self.shape = (len(features) * features.views, width)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Tensor:
        """Return the rows of a slice or an index array."""
        return self.features.column(self.path, rows)


class MetricScore:
    """Scores held-out predictions by a metric of the task.

    Args:
        metric: a new one.
        ranking: names the value that ranks.
    """

    def __init__(self, metric: Metric, ranking: Ranking) -> None:
        self.metric, self.ranking = metric, ranking
        self.name = ranking.name

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Accumulate logits `[rows, classes]` and labels `[rows]`."""
        self.metric.update(Outputs(logits), labels)

    def score(self) -> tuple[float, ...]:
        """Return the score, higher is better."""
        return self.ranking.score(self.metric.compute())


def fit_heads(
    network: Network,
    features: FeatureSet,
    probe: LogisticProbe,
    outputs: int,
    seed: int,
    new_score: Callable[[], HeldOutScore] | None = None,
    groups: Sequence[str] = (),
) -> tuple[dict[str, Any], HeldOut | None]:
    """Fit every head to its optimum on cached features.

    Args:
        network: with linear heads that have a bias.
        features: of the training split.
        probe: settings of the fit.
        outputs: number of classes.
        seed: of the folds.
        new_score: of the held-out predictions, to select the penalty; None for the log loss.
        groups: of each image of the split, which are held out together; empty without.

    Returns:
        Record of the main head's fit, for `run.json`; and its held-out predictions of the first
        view of each image, `rows` being positions in the split; None without cross-validation.
    """
    labels = features.targets.cpu().repeat_interleave(features.views)
    fitted: list[Probe] = []
    for path in network.paths:
        if all(column.path != path for column in features.store.columns):
            continue  # the head does not run
        result = fit_probe(
            FeatureColumn(features, path),
            labels,
            outputs,
            class_weight=probe.class_weight,
            label_smoothing=probe.label_smoothing,
            seed=seed,
            views=features.views,
            device=network.device,
            new_score=new_score,
            groups=_group_numbers(groups, features),
        )
        copy_to_head(network.module.get_submodule(path), result)
        fitted.append(result)
    return to_record(fitted[0]), _of_images(fitted[0].held_out, features)


def _of_images(held_out: HeldOut | None, features: FeatureSet) -> HeldOut | None:
    """Return the held-out predictions of the first view of each image."""
    if held_out is None:
        return None
    first = held_out.rows % features.views == 0
    readable = torch.nonzero(features.row >= 0).flatten()
    positions = readable[held_out.rows[first] // features.views]
    return HeldOut(positions, held_out.logits[first], held_out.labels[first])


def _group_numbers(groups: Sequence[str], features: FeatureSet) -> Tensor | None:
    """Return the group of each row of features as an integer, `[rows]`; None without groups."""
    if not groups:
        return None
    numbers = {group: number for number, group in enumerate(sorted(set(groups)))}
    each = torch.tensor([numbers[group] for group in groups])
    return each[features.row >= 0].repeat_interleave(features.views)


@torch.no_grad()
def copy_to_head(head: nn.Module, probe: Probe) -> None:
    """Set the weights of a linear head."""
    assert isinstance(head, (nn.Linear, nn.Conv2d))
    assert head.bias is not None
    head.weight.copy_(probe.weight.reshape(head.weight.shape))
    head.bias.copy_(probe.bias)


def to_record(probe: Probe) -> dict[str, Any]:
    """Return the fit of a head as plain data, for `run.json`."""
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
