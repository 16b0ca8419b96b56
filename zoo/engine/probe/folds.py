"""Folds of images, or of groups of them, for cross-validation."""

from __future__ import annotations

import torch
from torch import Tensor

from zoo.seeding import shuffled


def stratified_group_folds(labels: Tensor, groups: Tensor, folds: int, seed: int) -> Tensor:
    """Return the fold of each image, the same for all of a group; -1 for those never held out.

    Groups are assigned in descending order of their images, each to the fold in which the classes
    are then spread most evenly, as in scikit-learn's `StratifiedGroupKFold`. A group that has all
    images of a class is never held out, since its fold could not learn the class.

    Args:
        labels: `[images]`.
        groups: `[images]`, integers.
        folds: maximum number of folds; there are no more than groups.
        seed: of the order of groups with equally many images.
    """
    _, group = groups.unique(return_inverse=True)
    names, classes = int(group.max()) + 1, int(labels.max()) + 1
    counts = torch.zeros(names, classes, dtype=torch.float64)
    counts.index_put_((group, labels), torch.ones(len(labels)).double(), accumulate=True)
    only = (counts == counts.sum(0)) & (counts > 0)
    order = shuffled(names, seed)
    order = order[counts.sum(1)[order].argsort(descending=True, stable=True)]
    order = order[~only.any(1)[order]]
    count = min(folds, len(order))
    fold = torch.full((names,), -1)
    if count < 2:
        return fold[group]
    share = counts / counts.sum(0).clamp(min=1)
    totals = torch.zeros(count, classes, dtype=torch.float64)
    for each in order.tolist():
        # The sum of squared shares is least where the folds are most even.
        increase = ((totals + share[each]) ** 2 - totals**2).sum(1)
        best = int(increase.argmin())
        fold[each] = best
        totals[best] += share[each]
    return fold[group]


def stratified_folds(labels: Tensor, folds: int, seed: int) -> Tensor:
    """Return the stratified fold of each image; -1 for images that are never held out.

    The single image of a class is never held out, since its fold could not learn the class. There
    are no more folds than the largest class has images.

    Args:
        labels: `[images]`.
        folds: maximum number of folds.
        seed: of the random order.
    """
    sizes = torch.bincount(labels)
    count = min(folds, int(sizes.max()))
    order = shuffled(len(labels), seed)
    order = order[labels[order].argsort(stable=True)]
    order = order[sizes[labels[order]] > 1]
    fold = torch.full_like(labels, -1)
    if count > 1:
        # Continues after the fold of the last class's end, so that folds have equal sizes.
        fold[order] = torch.arange(len(order)) % count
    return fold


def assign_folds(
    labels: Tensor, groups: Tensor | None, folds: int, seed: int, views: int
) -> Tensor:
    """Return the fold of each row, by groups where given; views of an image are in the same."""
    if groups is None:
        return stratified_folds(labels[::views], folds, seed).repeat_interleave(views)
    return stratified_group_folds(labels, groups, folds, seed)
