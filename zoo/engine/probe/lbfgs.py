"""Multinomial logistic regression to its optimum: several problems at once, by L-BFGS.

The problems share their rows and differ in which of them count, as folds do, so that one product
of the features with all weights side by side serves them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.engine.probe.standardize import Standard

# How many steps L-BFGS remembers, as long as they take no more than so much.
MEMORY, MEMORY_BYTES = 10, 256 << 20
# Of the decrease that the slope promises, what a step must keep.
ENOUGH = 1e-4
SHORTEST = 1e-4
# After so many steps that gain nothing, no further one will.
IDLE = 3

Function = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class Softmax:
    """The mean weighted cross-entropy of several problems, and half the penalty times |W|².

    Weights are `[problems, classes, columns + 1]`; last comes the bias, which nothing penalises.
    Logits have their rows last: so few classes times so many rows is what products of matrices
    are quickest at, by up to five times.

    Args:
        features: standardised.
        labels: `[rows]`, on the features' device.
        classes: how many there are.
        counts: `[problems, rows]`: what each row counts in each problem.
        dtype: to compute in.
    """

    features: Standard
    labels: Tensor
    classes: int
    counts: Tensor
    dtype: torch.dtype

    @property
    def problems(self) -> int:
        """How many problems there are."""
        return len(self.counts)

    def zeros(self) -> Tensor:
        """Return weights to start at."""
        shape = (self.problems, self.classes, self.features.columns + 1)
        return torch.zeros(shape, dtype=self.dtype, device=self.counts.device)

    def at(self, penalty: float) -> Function:
        """Return the function from weights to `[problems]` losses and the gradient."""

        def evaluate(weights: Tensor) -> tuple[Tensor, Tensor]:
            gradient = penalty * weights
            gradient[..., -1] = 0
            loss = dots(gradient, weights) / 2
            by_class = gradient.flatten(0, 1)
            for place, rows in self._chunks():
                said = self._logits(weights, rows).log_softmax(1)
                counts = self.counts[:, place]
                mine = self.labels[None, None, place].expand(self.problems, 1, -1)
                loss = loss - (counts * said.gather(1, mine)[:, 0]).sum(1, dtype=loss.dtype)
                wrong = said.exp_()
                wrong.scatter_add_(1, mine, wrong.new_full((), -1).expand(mine.shape))
                flat = wrong.mul_(counts[:, None]).flatten(0, 1)
                by_class[:, :-1].addmm_(flat, rows)
                by_class[:, -1] += flat.sum(1)
            return loss, gradient

        return evaluate

    def held_out(self, weights: Tensor, fold: Tensor) -> tuple[Tensor, Tensor]:
        """Return of each row that a fold holds out its log loss, and whether it is right.

        Args:
            weights: of all problems, one for each fold.
            fold: `[rows]`: the fold that holds a row out, or -1; such rows come out as 0.
        """
        losses, right = [], []
        for place, rows in self._chunks():
            mine, out = self.labels[place], fold[place]
            index = out.clamp(min=0)[None, None].expand(1, self.classes, -1)
            said = self._logits(weights, rows).gather(0, index)[0]
            loss = said.logsumexp(0) - said.gather(0, mine[None])[0]
            losses.append(loss * (out >= 0))
            right.append((said.argmax(0) == mine) & (out >= 0))
        return torch.cat(losses), torch.cat(right)

    def _chunks(self) -> Iterator[tuple[slice, Tensor]]:
        return self.features.chunks(self.dtype, self.problems * self.classes)

    def _logits(self, weights: Tensor, rows: Tensor) -> Tensor:
        """Return `[problems, classes, rows]`."""
        flat = weights.flatten(0, 1)
        logits = torch.addmm(flat[:, -1:], flat[:, :-1], rows.T)
        return logits.view(self.problems, self.classes, -1)


@dataclass(frozen=True)
class Optimum:
    """Where a minimisation ended.

    Args:
        weights: of all problems.
        loss: `[problems]`, penalty included.
        gap: `[problems]`: how far above its minimum a loss can be at most.
        converged: whether all gaps are as small as asked.
        iterations: how many it took.
        evaluations: how often all features were gone through.
    """

    weights: Tensor
    loss: Tensor
    gap: Tensor
    converged: bool
    iterations: int
    evaluations: int


def minimise(
    function: Function,
    start: Tensor,
    curvature: float,
    tolerance: float,
    most: int,
    stall: float = 0,
) -> Optimum:
    """Minimise several convex functions of their own weights at once, by L-BFGS.

    How near the minimum is, the gradient proves: `loss - minimum <= |gradient|² / (2 curvature)`.
    It stops where that is small beside the loss.

    Args:
        function: from weights to losses and the gradient.
        start: weights to start at.
        curvature: the least that the losses have in any direction; a penalty gives them one.
        tolerance: of the gap, for the size of the loss.
        most: iterations.
        stall: gives up after a few steps that each decrease a loss by no more, for its size.
    """
    # Rounding moves a loss by so much, and no step can decrease it further.
    noise = 4 * torch.finfo(start.dtype).eps
    weights = start
    loss, gradient = function(weights)
    steps = _Steps(start)
    evaluations, iterations = 1, 0
    idle = torch.zeros_like(loss)
    while True:
        gap = dots(gradient, gradient) / (2 * curvature)
        done = gap <= tolerance * loss
        if bool((done | (idle >= IDLE)).all()) or iterations == most:
            return Optimum(weights, loss, gap, bool(done.all()), iterations, evaluations)
        iterations += 1
        way = steps.direction(gradient)
        slope = dots(gradient, way)
        length = torch.ones_like(slope)
        if iterations == 1:
            # Nothing is known yet of how far to go.
            length = (1 / dots(gradient, gradient).sqrt()).clamp(max=1)
        while True:
            there = weights + _scaled(way, length)
            new, new_gradient = function(there)
            evaluations += 1
            short = ~(new <= loss + ENOUGH * length * slope + noise * loss)
            if not bool(short.any()):
                break
            # The minimum of the parabola through both losses and the slope.
            factor = -slope * length / (2 * (new - loss - slope * length))
            factor = factor.nan_to_num(0.1, 0.1, 0.1).clamp(0.1, 0.5)
            length = torch.where(short, length * factor, length)
            # No step is short enough to decrease what rounding alone moves.
            lost = length < SHORTEST
            length = torch.where(lost, torch.zeros_like(length), length)
            idle = torch.where(lost, torch.full_like(idle, IDLE), idle)
        slow = loss - new <= max(stall, noise) * loss
        idle = torch.where(slow, idle + 1, torch.zeros_like(idle))
        steps.remember(there - weights, new_gradient - gradient)
        weights, loss, gradient = there, new, new_gradient


class _Steps:
    """What L-BFGS knows of the curvature: the last steps, and what they did to the gradient."""

    def __init__(self, like: Tensor) -> None:
        bytes_each = 2 * like.numel() * like.element_size()
        self.most = min(MEMORY, max(3, MEMORY_BYTES // bytes_each))
        self.kept: list[tuple[Tensor, Tensor, Tensor]] = []
        self.scale: Tensor | None = None

    def direction(self, gradient: Tensor) -> Tensor:
        """Return where to go from a gradient."""
        way = -gradient
        shares = []
        for step, change, inverse in reversed(self.kept):
            share = inverse * dots(step, way)
            way = way - _scaled(change, share)
            shares.append(share)
        if self.scale is not None:
            way = _scaled(way, self.scale)
        for (step, change, inverse), share in zip(self.kept, reversed(shares), strict=True):
            share = share - inverse * dots(change, way)
            way = way + _scaled(step, share)
        return way

    def remember(self, step: Tensor, change: Tensor) -> None:
        """Take a step and the change of the gradient in."""
        product = dots(step, change)
        square = dots(change, change)
        good = product > 1e-10 * square
        # Of a problem that did not move, nothing can be learned.
        inverse = torch.where(good, 1 / product, torch.zeros_like(product))
        scale = torch.where(good, product / square, torch.ones_like(product))
        self.scale = scale if self.scale is None else torch.where(good, scale, self.scale)
        self.kept = [*self.kept, (step, change, inverse)][-self.most :]


def dots(one: Tensor, other: Tensor) -> Tensor:
    """Return `[problems]` inner products."""
    exact = torch.float32 if one.device.type == "mps" else torch.float64
    return (one * other).sum((1, 2), dtype=exact)


def _scaled(one: Tensor, factors: Tensor) -> Tensor:
    """Return weights times the factor of their problem."""
    return one * factors.to(one.dtype)[:, None, None]
