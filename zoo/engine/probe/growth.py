"""What more training images would be worth: heads fitted on fewer of the cached features."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.engine.features.cache import FeatureSet
from zoo.engine.features.hooks import run_heads
from zoo.engine.probe.logistic import fit_probe
from zoo.engine.runtime.network import Network
from zoo.seeding import shuffled
from zoo.tasks.base import LogisticProbe

# Shares of the training images, and random subsets of each.
SHARES, REPEATS = (0.125, 0.25, 0.5), 2
# Multiplications of one pass over all features; of more, the fits would take longer than seconds.
LIMIT = 400_000_000
FEWEST = 40


def accuracy_by_images(
    network: Network,
    train: FeatureSet,
    val: FeatureSet,
    probe: LogisticProbe,
    classes: int,
    seed: int,
    strength: float,
) -> list[tuple[int, tuple[float, ...]]]:
    """Return numbers of training images, each with accuracies on `val` of heads fitted on them.

    Random subsets with the same share of each class, all fitted with the penalty of the whole set.
    Empty for several heads or views, for large sets, and for features that are not in memory.

    Args:
        network: with the head of the whole set; it is not changed.
        train: features of the training split.
        val: features of the validation split.
        probe: settings of the fit.
        classes: number of them.
        seed: of the subsets.
        strength: the penalty.
    """
    path = network.paths[0]
    if train.loaded is None or val.loaded is None or train.views > 1 or len(network.paths) > 1:
        return []
    features, labels = train.loaded[path].flatten(1).float(), train.targets.cpu()
    if len(labels) < FEWEST or features.numel() * classes > LIMIT:
        return []
    head, held_out = network.module.get_submodule(path), val.loaded[path].flatten(1).float()
    if not isinstance(head, torch.nn.Linear) or held_out.shape[1] != head.in_features:
        return []
    truth, points = val.targets, []
    for share in SHARES:
        accuracies, rows = [], torch.zeros(0)
        for repeat in range(REPEATS):
            rows = _subset(labels, share, seed + repeat)
            fitted = fit_probe(
                features,
                labels,
                classes,
                class_weight=probe.class_weight,
                label_smoothing=probe.label_smoothing,
                strength=strength,
                rows=rows,
                device=network.device,
                exact=False,
            )
            weight, bias = fitted.weight.to(held_out.device), fitted.bias.to(held_out.device)
            accuracies.append(
                float(((held_out @ weight.T + bias).argmax(1) == truth).float().mean())
            )
        points.append((len(rows), tuple(accuracies)))
    with torch.inference_mode():
        outputs = run_heads(network, val.read(torch.arange(len(val))), False).main
    points.append((len(labels), (float((outputs.argmax(1) == truth).float().mean()),)))
    return points


def _subset(labels: Tensor, share: float, seed: int) -> Tensor:
    """Return rows with a share of each class, at least one."""
    order = shuffled(len(labels), seed)
    chosen = []
    for label in labels.unique().tolist():
        own = order[labels[order] == label]
        chosen.append(own[: max(round(len(own) * share), 1)])
    return torch.cat(chosen).sort().values
