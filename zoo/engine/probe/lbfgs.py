"""Multinomial logistic regression by L-BFGS, for several problems at once.

The problems share their rows and differ in row weights, as cross-validation folds do, so that one
product of the features with all weights stacked computes the logits of all problems.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.engine.probe.standardize import StandardizedFeatures

# History of L-BFGS: number of steps, and their maximum size.
HISTORY, HISTORY_BYTES = 10, 256 << 20
# Armijo condition: fraction of the decrease predicted by the slope that a step must reach.
ARMIJO = 1e-4
MIN_STEP = 1e-4
# Consecutive steps without progress after which a problem is stopped.
MAX_IDLE = 3

Function = Callable[[Tensor], tuple[Tensor, Tensor]]
# Called with logits `[rows, classes]` and labels `[rows]`.
OnHeldOut = Callable[[Tensor, Tensor], None]


@dataclass(frozen=True)
class Smoothing:
    """Further targets of label smoothing: each row has a weight for every class.

    Args:
        shares: `[classes]`, the weight that a row gives to each class.
        counts: `[problems, rows]`, factor of each row in each problem.
    """

    shares: Tensor
    counts: Tensor

    def loss(self, log_probs: Tensor, span: slice) -> Tensor:
        """Return the `[problems]` losses of a chunk of log-probabilities."""
        by_row = torch.einsum("c,pcr->pr", self.shares, log_probs)
        return -(self.counts[:, span] * by_row).sum(1, dtype=exact_type(log_probs))

    def residual(self, probabilities: Tensor, span: slice) -> Tensor:
        """Return the gradient of the logits of a chunk."""
        residual = self.shares.sum() * probabilities - self.shares[:, None]
        return residual * self.counts[:, None, span]


@dataclass(frozen=True)
class Softmax:
    """Weighted mean cross-entropy of several problems, plus half the penalty times |W|².

    Weights are `[problems, classes, columns + 1]`, the last column the unpenalised bias. Logits
    have rows in the last dimension: the products of few classes and many rows are up to five times
    faster so.

    Args:
        features: standardized.
        labels: `[rows]`, on the features' device.
        classes: number of classes.
        counts: `[problems, rows]`, weight of each row in each problem.
        dtype: to compute in.
        smoothing: of the labels; None without.
    """

    features: StandardizedFeatures
    labels: Tensor
    classes: int
    counts: Tensor
    dtype: torch.dtype
    smoothing: Smoothing | None = None

    @property
    def problems(self) -> int:
        """Number of problems."""
        return len(self.counts)

    def zeros(self) -> Tensor:
        """Return weights of zero."""
        shape = (self.problems, self.classes, self.features.columns + 1)
        return torch.zeros(shape, dtype=self.dtype, device=self.counts.device)

    def at(self, penalty: float) -> Function:
        """Return the function from weights to `[problems]` losses and the gradient."""

        def evaluate(weights: Tensor) -> tuple[Tensor, Tensor]:
            gradient = penalty * weights
            gradient[..., -1] = 0
            loss = dots(gradient, weights) / 2
            by_class = gradient.flatten(0, 1)
            for span, rows in self._chunks():
                log_probs = self._logits(weights, rows).log_softmax(1)
                counts = self.counts[:, span]
                labels = self.labels[None, None, span].expand(self.problems, 1, -1)
                loss = loss - (counts * log_probs.gather(1, labels)[:, 0]).sum(1, dtype=loss.dtype)
                if self.smoothing is not None:
                    loss = loss + self.smoothing.loss(log_probs, span)
                # Gradient of the logits: probabilities minus the one-hot labels.
                residual = log_probs.exp_()
                smooth = None
                if self.smoothing is not None:
                    smooth = self.smoothing.residual(residual, span)
                residual.scatter_add_(1, labels, residual.new_full((), -1).expand(labels.shape))
                residual.mul_(counts[:, None])
                flat = (residual if smooth is None else residual + smooth).flatten(0, 1)
                by_class[:, :-1].addmm_(flat, rows)
                by_class[:, -1] += flat.sum(1)
            return loss, gradient

        return evaluate

    def held_out(
        self, weights: Tensor, fold: Tensor, visit: OnHeldOut | None = None
    ) -> tuple[Tensor, Tensor]:
        """Return the log loss of each held-out row, and whether its prediction is correct.

        Args:
            weights: of all problems, one per fold.
            fold: `[rows]`, the fold in which a row is held out, or -1 for none; the loss is 0 then.
            visit: called with logits and labels of the held-out rows of each chunk.
        """
        losses, correct = [], []
        for span, rows in self._chunks():
            labels, folds = self.labels[span], fold[span].to(self.labels.device)
            index = folds.clamp(min=0)[None, None].expand(1, self.classes, -1)
            logits = self._logits(weights, rows).gather(0, index)[0]
            loss = logits.logsumexp(0) - logits.gather(0, labels[None])[0]
            losses.append(loss * (folds >= 0))
            correct.append((logits.argmax(0) == labels) & (folds >= 0))
            if visit is not None:
                visit(logits.T[folds >= 0], labels[folds >= 0])
        return torch.cat(losses), torch.cat(correct)

    def _chunks(self) -> Iterator[tuple[slice, Tensor]]:
        return self.features.chunks(self.dtype, self.problems * self.classes)

    def _logits(self, weights: Tensor, rows: Tensor) -> Tensor:
        """Return `[problems, classes, rows]`."""
        flat = weights.flatten(0, 1)
        logits = torch.addmm(flat[:, -1:], flat[:, :-1], rows.T)
        return logits.view(self.problems, self.classes, -1)


@dataclass(frozen=True)
class Optimum:
    """Result of a minimisation.

    Args:
        weights: of all problems.
        loss: `[problems]`, penalty included.
        gap: `[problems]`, upper bound of the distance of the loss to its minimum.
        converged: whether all gaps are within the tolerance.
        iterations: number of iterations.
        evaluations: number of passes over all features.
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
    max_iterations: int,
    stall: float = 0,
) -> Optimum:
    """Minimise several independent convex functions at once by L-BFGS.

    The gradient bounds the distance to the minimum: `loss - minimum <= |gradient|² / (2
    curvature)`. Stops when the bound is small relative to the loss.

    Args:
        function: from weights to losses and the gradient.
        start: initial weights.
        curvature: lower bound of the curvature in any direction, which a penalty ensures.
        tolerance: of the gap, relative to the loss.
        max_iterations: limit of iterations.
        stall: stop after `MAX_IDLE` steps whose relative decrease of the loss is no larger.
    """
    # Relative rounding error of a loss, below which no step can decrease it.
    noise = 4 * torch.finfo(start.dtype).eps
    weights = start
    loss, gradient = function(weights)
    history = _History(start)
    evaluations, iterations = 1, 0
    idle = torch.zeros_like(loss)
    while True:
        gap = dots(gradient, gradient) / (2 * curvature)
        done = gap <= tolerance * loss
        if bool((done | (idle >= MAX_IDLE)).all()) or iterations == max_iterations:
            return Optimum(weights, loss, gap, bool(done.all()), iterations, evaluations)
        iterations += 1
        direction = history.direction(gradient)
        slope = dots(gradient, direction)
        length = torch.ones_like(slope)
        if iterations == 1:
            # Without a history there is no scale: limit the first step to length 1.
            length = (1 / dots(gradient, gradient).sqrt()).clamp(max=1)
        while True:
            new = weights + _scaled(direction, length)
            new_loss, new_gradient = function(new)
            evaluations += 1
            rejected = ~(new_loss <= loss + ARMIJO * length * slope + noise * loss)
            if not bool(rejected.any()):
                break
            # Minimum of the parabola through both losses and the slope.
            factor = -slope * length / (2 * (new_loss - loss - slope * length))
            factor = factor.nan_to_num(0.1, 0.1, 0.1).clamp(0.1, 0.5)
            length = torch.where(rejected, length * factor, length)
            # The decrease is within rounding: stop this problem.
            stopped = length < MIN_STEP
            length = torch.where(stopped, torch.zeros_like(length), length)
            idle = torch.where(stopped, torch.full_like(idle, MAX_IDLE), idle)
        slow = loss - new_loss <= max(stall, noise) * loss
        idle = torch.where(slow, idle + 1, torch.zeros_like(idle))
        history.append(new - weights, new_gradient - gradient)
        weights, loss, gradient = new, new_loss, new_gradient


class _History:
    """L-BFGS approximation of the inverse Hessian, from the last steps and gradient changes."""

    def __init__(self, like: Tensor) -> None:
        step_bytes = 2 * like.numel() * like.element_size()
        self.size = min(HISTORY, max(3, HISTORY_BYTES // step_bytes))
        self.steps: list[tuple[Tensor, Tensor, Tensor]] = []
        self.scale: Tensor | None = None

    def direction(self, gradient: Tensor) -> Tensor:
        """Return the search direction at a gradient (two-loop recursion)."""
        direction = -gradient
        alphas = []
        for step, change, inverse in reversed(self.steps):
            alpha = inverse * dots(step, direction)
            direction = direction - _scaled(change, alpha)
            alphas.append(alpha)
        if self.scale is not None:
            direction = _scaled(direction, self.scale)
        for (step, change, inverse), alpha in zip(self.steps, reversed(alphas), strict=True):
            alpha = alpha - inverse * dots(change, direction)
            direction = direction + _scaled(step, alpha)
        return direction

    def append(self, step: Tensor, change: Tensor) -> None:
        """Add a step and its change of the gradient."""
        product = dots(step, change)
        square = dots(change, change)
        # A problem that did not move has no curvature to add.
        valid = product > 1e-10 * square
        inverse = torch.where(valid, 1 / product, torch.zeros_like(product))
        scale = torch.where(valid, product / square, torch.ones_like(product))
        self.scale = scale if self.scale is None else torch.where(valid, scale, self.scale)
        self.steps = [*self.steps, (step, change, inverse)][-self.size :]


def dots(one: Tensor, other: Tensor) -> Tensor:
    """Return `[problems]` inner products."""
    return (one * other).sum((1, 2), dtype=exact_type(one))


def exact_type(tensor: Tensor) -> torch.dtype:
    """Return the most exact type of a tensor's device: MPS has no float64."""
    return torch.float32 if tensor.device.type == "mps" else torch.float64


def _scaled(one: Tensor, factors: Tensor) -> Tensor:
    """Multiply the weights of each problem by its factor."""
    return one * factors.to(one.dtype)[:, None, None]
