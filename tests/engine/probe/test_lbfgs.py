"""The solver: minima that are known, the proof that one is near, problems side by side."""

import pytest
import torch

from zoo.engine.probe.lbfgs import Softmax, dots, minimise
from zoo.engine.probe.standardize import Standard


def random(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def bowls(minima, curvatures, floor=1.0):
    """Return quadratic problems, one for each row of curvatures, and how often they were asked."""
    asked = []

    def evaluate(weights):
        asked.append(len(weights))
        away = weights - minima
        gradient = curvatures * away
        return floor + dots(gradient, away) / 2, gradient

    return evaluate, asked


def test_it_finds_a_minimum_that_is_known():
    minimum = random(1, 3, 40)
    function, asked = bowls(minimum, torch.logspace(-2, 1, 40).double().expand(1, 3, 40))
    found = minimise(function, torch.zeros_like(minimum), 1e-2, 1e-10, 500)
    assert found.converged
    assert found.evaluations == len(asked)
    torch.testing.assert_close(found.weights, minimum, atol=1e-3, rtol=0)
    assert float(found.loss) == pytest.approx(1, abs=1e-9)


def test_the_gap_is_never_less_than_the_true_one():
    minimum = random(1, 2, 30)
    function, _ = bowls(minimum, torch.logspace(-2, 1, 30).double().expand(1, 2, 30))
    for most in (0, 1, 3, 10):
        found = minimise(function, torch.zeros_like(minimum), 1e-2, 1e-12, most)
        assert not found.converged
        assert found.iterations == most
        assert float(found.gap) >= float(found.loss) - 1


def test_problems_side_by_side_end_where_each_ends_alone():
    minima = random(3, 2, 20) * torch.tensor([0.0, 1.0, 100.0])[:, None, None]
    curvatures = torch.stack([torch.logspace(-low, 0, 20).double() for low in range(3)])
    curvatures = curvatures[:, None].expand(3, 2, 20)
    function, _ = bowls(minima, curvatures)
    found = minimise(function, torch.zeros_like(minima), 1e-2, 1e-9, 500)
    assert found.converged
    # The first starts at its minimum, and is not moved from it by what the others need.
    assert not found.weights[0].any()
    torch.testing.assert_close(found.weights, minima, atol=1e-2, rtol=1e-3)


def test_it_gives_up_where_steps_gain_no_more_than_asked():
    minimum = random(1, 2, 60) * 100
    function, asked = bowls(minimum, torch.logspace(-5, 1, 60).double().expand(1, 2, 60))
    tired = minimise(function, torch.zeros_like(minimum), 1e-5, 1e-12, 2000, stall=0.05)
    few = len(asked)
    patient = minimise(function, torch.zeros_like(minimum), 1e-5, 1e-12, 2000)
    assert not tired.converged
    assert few < (len(asked) - few) / 2
    assert float(patient.loss) < float(tired.loss)


def problem(rows=60, width=5, classes=3, problems=2):
    labels = torch.arange(rows) % classes
    features = Standard(random(rows, width).float() + labels[:, None], None, torch.device("cpu"))
    counts = (random(problems, rows, seed=1).abs() > 0.5).double() / rows
    return Softmax(features, labels, classes, counts, torch.float64)


def test_loss_and_gradient_are_those_of_cross_entropy():
    softmax = problem()
    weights = random(2, 3, 6, seed=2).requires_grad_()
    rows = torch.cat([part for _, part in softmax.features.chunks(torch.float64, 1)])
    said = torch.einsum("pcw,rw->prc", weights[..., :-1], rows) + weights[:, None, :, -1]
    losses = -said.log_softmax(2)[:, torch.arange(60), softmax.labels]
    expected = (softmax.counts * losses).sum(1) + 0.3 * weights[..., :-1].square().sum((1, 2)) / 2
    expected.sum().backward()
    loss, gradient = softmax.at(0.3)(weights.detach())
    torch.testing.assert_close(loss, expected.detach(), rtol=1e-10, atol=0)
    torch.testing.assert_close(gradient, weights.grad, rtol=1e-9, atol=1e-12)


def test_each_row_is_judged_by_the_fold_that_holds_it_out():
    softmax = problem()
    weights = random(2, 3, 6, seed=2)
    fold = torch.arange(60) % 3 - 1
    loss, right = softmax.held_out(weights, fold)
    rows = torch.cat([part for _, part in softmax.features.chunks(torch.float64, 1)])
    for row in range(60):
        if fold[row] < 0:
            assert (loss[row], right[row]) == (0, False)
            continue
        mine = weights[fold[row]]
        said = mine[:, :-1] @ rows[row] + mine[:, -1]
        expected = torch.nn.functional.cross_entropy(said, softmax.labels[row])
        assert float(loss[row]) == pytest.approx(float(expected))
        assert bool(right[row]) == (int(said.argmax()) == int(softmax.labels[row]))
