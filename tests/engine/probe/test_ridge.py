"""Ridge regression from mergeable sums, against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits, make_classification
from sklearn.linear_model import Ridge, RidgeCV

import zoo
from zoo.engine.probe.logistic import fit_probe
from zoo.engine.probe.ridge import FeatureSums, fit_scale, merge_sums, solve_ridge


@pytest.fixture(scope="module")
def data():
    x, y = make_classification(
        300, 20, n_informative=8, n_classes=4, n_clusters_per_class=1, random_state=0
    )
    x = x * np.logspace(-2, 2, 20) + 1000.0
    x[:, 3] = 5.0  # a constant feature
    return torch.from_numpy(x), torch.from_numpy(y)


def sums(x, y, classes=4):
    return FeatureSums.of([(x, y)], classes, x.shape[1])


def standardized(x):
    deviation = x.std(0, correction=0)
    return ((x - x.mean(0)) / torch.where(deviation < 1e-6, 1.0, deviation)).numpy()


def test_merged_sums_equal_moments_of_all(data):
    x, y = data
    parts = [sums(x[a:b], y[a:b]) for a, b in ((0, 1), (1, 120), (120, 300))]
    whole = parts[0].merge(parts[1]).merge(FeatureSums.empty(4, 20)).merge(parts[2])
    centered = (x - x.mean(0)).numpy()
    assert np.allclose(whole.scatter, centered.T @ centered, atol=1e-7)
    assert np.allclose(whole.mean, x.mean(0))
    assert np.allclose(whole.sums, [x[y == c].sum(0).numpy() for c in range(4)])
    assert whole.images == 300


def test_sums_have_the_same_bytes_for_any_number_of_workers(data):
    x, y = data
    parts = [slice(first, first + 13) for first in range(0, 300, 13)]
    one, seven = (
        merge_sums(parts, lambda rows: sums(x[rows], y[rows]), workers) for workers in (1, 7)
    )
    for name in ("counts", "sums", "mean", "scatter"):
        assert torch.equal(getattr(one, name), getattr(seven, name))
    assert torch.equal(solve_ridge(one).weight, solve_ridge(seven).weight)


@pytest.mark.parametrize("rows", [300, 15])
def test_head_equals_ridge_of_scikit_learn(data, rows):
    x, y = data[0][:rows], data[1][:rows]
    found = solve_ridge(sums(x, y), [3.0])
    targets = np.eye(4)[y]
    expected = Ridge(alpha=3.0).fit(standardized(x), targets).predict(standardized(x))
    assert np.allclose(found.scores(x), expected, atol=1e-8)


def test_penalty_is_that_of_cross_validation(data):
    x, y = data
    penalties = [10.0**n for n in range(-3, 5)]
    found = solve_ridge(sums(x, y), penalties)
    z, targets = standardized(x), np.eye(4)[y]
    theirs = RidgeCV(alphas=penalties).fit(z, targets)
    assert found.penalty == theirs.alpha_
    assert np.allclose(found.scores(x), theirs.predict(z), atol=1e-8)
    # The definition, with the hat matrix of each penalty.
    centered = z - z.mean(0)
    for penalty, score in found.searched:
        hat = centered @ np.linalg.solve(centered.T @ centered + penalty * np.eye(20), centered.T)
        hat += 1 / 300
        residual = targets - hat @ targets
        expected = (residual**2).sum() / 300 / (1 - np.trace(hat) / 300) ** 2
        assert score == pytest.approx(expected, rel=1e-7)


def test_held_out_scores_are_those_of_refits(data):
    x, y = data[0][:60], data[1][:60]
    found = solve_ridge(sums(x, y), [3.0])
    held_out = found.held_out_scores(x, y)
    # Standardized as all are: only the image itself is left out.
    z, targets = standardized(x), np.eye(4)[y]
    for row in (0, 7, 59):
        others = np.arange(60) != row
        refit = Ridge(alpha=3.0).fit(z[others], targets[others])
        assert np.allclose(held_out[row], refit.predict(z[row : row + 1])[0], atol=1e-8)


def test_scale_has_the_least_log_loss(data):
    x, y = data
    head = solve_ridge(sums(x, y))
    scores = head.held_out_scores(x, y)
    scale = fit_scale(scores, y)

    def loss(factor):
        return float(torch.nn.functional.cross_entropy(factor * scores, y))

    assert loss(scale) < min(loss(scale * 0.99), loss(scale * 1.01), loss(1.0))
    assert fit_scale(torch.zeros(3, 2).double(), torch.tensor([0, 1, 0])) == 1.0


def test_accuracy_is_near_that_of_the_solver():
    digits = load_digits()
    x = torch.from_numpy(digits.data).double()
    # Features as a network's: a fixed random layer.
    generator = torch.Generator().manual_seed(0)
    layer = torch.randn(64, 256, generator=generator, dtype=torch.float64)
    x = (x / 16 - 0.3).mul(0.5).matmul(layer).relu().float()
    y = torch.from_numpy(digits.target)
    train, test = slice(0, 1200), slice(1200, None)
    ridge = solve_ridge(sums(x[train], y[train], 10))
    probe = fit_probe(x[train], y[train], 10)
    by_ridge = (ridge.scores(x[test]).argmax(1) == y[test]).float().mean()
    by_probe = ((x[test] @ probe.weight.T + probe.bias).argmax(1) == y[test]).float().mean()
    assert by_ridge > by_probe - 0.005


def test_feature_that_is_not_finite_is_named(data):
    x = data[0].clone()
    x[5, 2] = float("inf")
    with pytest.raises(zoo.DataError, match="feature 2 of the images"):
        sums(x, data[1])
    with pytest.raises(zoo.UsageError, match="no images"):
        solve_ridge(FeatureSums.empty(2, 3))
