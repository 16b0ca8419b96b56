"""Folds of groups for cross-validation."""

import numpy as np
import pytest
import torch
from sklearn.model_selection import StratifiedGroupKFold

from zoo.engine.probe.folds import stratified_group_folds
from zoo.engine.probe.logistic import fit_probe


def case(seed: int, groups: int = 40, images: int = 300, classes: int = 4):
    draw = np.random.default_rng(seed)
    group = np.concatenate([np.arange(groups), draw.integers(0, groups, images - groups)])
    return torch.from_numpy(draw.integers(0, classes, images)), torch.from_numpy(group)


def unevenness(labels, fold, count: int = 5) -> float:
    """Return the standard deviation of the folds' shares of each class, the mean over classes."""
    table = np.zeros((count, int(labels.max()) + 1))
    np.add.at(table, (np.asarray(fold), np.asarray(labels)), 1)
    return float((table / table.sum(0)).std(0).mean())


@pytest.mark.parametrize("seed", range(4))
def test_folds_of_groups_are_as_even_as_scikit_learns(seed):
    labels, groups = case(seed)
    fold = stratified_group_folds(labels, groups, 5, seed)
    assert set(fold.tolist()) == set(range(5))
    for group in groups.unique():
        assert len(fold[groups == group].unique()) == 1
    theirs = np.zeros(len(labels), dtype=int)
    splits = StratifiedGroupKFold(5).split(np.zeros(len(labels)), labels.numpy(), groups.numpy())
    for number, (_, held) in enumerate(splits):
        theirs[held] = number
    assert unevenness(labels, fold) <= 1.25 * unevenness(labels, theirs)
    assert (stratified_group_folds(labels, groups, 5, seed) == fold).all()


def test_group_of_whole_class_is_never_held_out():
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 0, 1])
    groups = torch.tensor([5, 5, 7, 8, 9, 9, 9, 9])
    fold = stratified_group_folds(labels, groups, 3, 0)
    assert fold[4:].tolist() == [-1] * 4
    assert sorted({*fold[:4].tolist()}) == [0, 1, 2]
    assert fold[0] == fold[1]


def test_too_few_groups_have_no_folds():
    labels = torch.tensor([0, 1, 0, 1])
    assert (
        stratified_group_folds(labels, torch.zeros(4, dtype=torch.int64), 5, 0).tolist() == [-1] * 4
    )
    two = stratified_group_folds(labels, torch.tensor([0, 0, 1, 1]), 5, 0)
    assert sorted(two.tolist()) == [0, 0, 1, 1]


def test_probe_is_scored_on_groups_it_has_not_seen():
    """Rows of a group are equal, and groups have random classes: only leaks can be learned."""
    generator = torch.Generator().manual_seed(0)
    groups = torch.arange(40).repeat_interleave(6)
    rows = torch.randn(40, 100, generator=generator)[groups]
    labels = (torch.arange(40) % 2)[groups]
    leaking = fit_probe(rows, labels, 2).accuracy
    probe = fit_probe(rows, labels, 2, groups=groups)
    assert min(leaking) == 1.0
    assert sum(probe.accuracy) / len(probe.accuracy) == pytest.approx(0.5, abs=0.2)
    assert len(probe.accuracy) == 5
    some = torch.arange(0, 240, 2)
    selected = fit_probe(rows, labels, 2, groups=groups, rows=some)
    assert selected.accuracy == fit_probe(rows[some], labels[some], 2, groups=groups[some]).accuracy
