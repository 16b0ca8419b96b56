"""L-BFGS: known minima, the bound of the gap, several problems at once."""

import pytest
import torch

from zoo.engine.probe.lbfgs import Softmax, dots, minimise
from zoo.engine.probe.standardize import StandardizedFeatures


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def bowls(minima, curvatures, floor=1.0):
    """Return quadratic problems, one per row of curvatures, and a record of evaluations."""
    evaluations = []

    def evaluate(weights):
        evaluations.append(len(weights))
        away = weights - minima
        gradient = curvatures * away
        return floor + dots(gradient, away) / 2, gradient

    return evaluate, evaluations


def test_minimise_finds_known_minimum():
    minimum = random(1, 3, 40)
    function, evaluations = bowls(minimum, torch.logspace(-2, 1, 40).double().expand(1, 3, 40))
    result = minimise(function, torch.zeros_like(minimum), 1e-2, 1e-10, 500)
    assert result.converged
    assert result.evaluations == len(evaluations)
    torch.testing.assert_close(result.weights, minimum, atol=1e-3, rtol=0)
    assert float(result.loss) == pytest.approx(1, abs=1e-9)


def test_gap_is_upper_bound():
    minimum = random(1, 2, 30)
    function, _ = bowls(minimum, torch.logspace(-2, 1, 30).double().expand(1, 2, 30))
    for max_iterations in (0, 1, 3, 10):
        result = minimise(function, torch.zeros_like(minimum), 1e-2, 1e-12, max_iterations)
        assert not result.converged
        assert result.iterations == max_iterations
        assert float(result.gap) >= float(result.loss) - 1


def test_minimise_problems_are_independent():
    minima = random(3, 2, 20) * torch.tensor([0.0, 1.0, 100.0])[:, None, None]
    curvatures = torch.stack([torch.logspace(-low, 0, 20).double() for low in range(3)])
    curvatures = curvatures[:, None].expand(3, 2, 20)
    function, _ = bowls(minima, curvatures)
    result = minimise(function, torch.zeros_like(minima), 1e-2, 1e-9, 500)
    assert result.converged
    # The first starts at its minimum, and must not be moved by the others.
    assert not result.weights[0].any()
    torch.testing.assert_close(result.weights, minima, atol=1e-2, rtol=1e-3)


def test_minimise_stops_when_stalled():
    minimum = random(1, 2, 60) * 100
    function, evaluations = bowls(minimum, torch.logspace(-5, 1, 60).double().expand(1, 2, 60))
    stalled = minimise(function, torch.zeros_like(minimum), 1e-5, 1e-12, 2000, stall=0.05)
    few = len(evaluations)
    complete = minimise(function, torch.zeros_like(minimum), 1e-5, 1e-12, 2000)
    assert not stalled.converged
    assert few < (len(evaluations) - few) / 2
    assert float(complete.loss) < float(stalled.loss)


def problem(rows=60, width=5, classes=3, problems=2):
    labels = torch.arange(rows) % classes
    features = StandardizedFeatures(
        random(rows, width).float() + labels[:, None], None, torch.device("cpu")
    )
    counts = (random(problems, rows, seed=1).abs() > 0.5).double() / rows
    return Softmax(features, labels, classes, counts, torch.float64)


def test_softmax_matches_cross_entropy_autograd():
    softmax = problem()
    weights = random(2, 3, 6, seed=2).requires_grad_()
    rows = torch.cat([part for _, part in softmax.features.chunks(torch.float64, 1)])
    logits = torch.einsum("pcw,rw->prc", weights[..., :-1], rows) + weights[:, None, :, -1]
    losses = -logits.log_softmax(2)[:, torch.arange(60), softmax.labels]
    expected = (softmax.counts * losses).sum(1) + 0.3 * weights[..., :-1].square().sum((1, 2)) / 2
    expected.sum().backward()
    loss, gradient = softmax.at(0.3)(weights.detach())
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-10, atol=0)
    torch.testing.assert_close(gradient, weights.grad, rtol=1e-9, atol=1e-12)


def test_held_out_uses_weights_of_its_fold():
    softmax = problem()
    weights = random(2, 3, 6, seed=2)
    fold = torch.arange(60) % 3 - 1
    loss, right = softmax.held_out(weights, fold)
    rows = torch.cat([part for _, part in softmax.features.chunks(torch.float64, 1)])
    for row in range(60):
        if fold[row] < 0:
            assert (loss[row], right[row]) == (0, False)
            continue
        own = weights[fold[row]]
        logits = own[:, :-1] @ rows[row] + own[:, -1]
        expected = torch.nn.functional.cross_entropy(logits, softmax.labels[row])
        assert float(loss[row]) == pytest.approx(float(expected))
        assert bool(right[row]) == (int(logits.argmax()) == int(softmax.labels[row]))
