"""Linear probe: a linear head at its optimum on cached features.

Multinomial logistic regression on standardized features with an L2 penalty, as in CLIP (Radford
et al., 2021, arXiv 2103.00020, appendix A.3) and in Kornblith et al. (2019, arXiv 1805.08974,
appendix A.4): full-batch L-BFGS, and a search of the penalty on a logarithmic scale. They select it
on a validation set; here cross-validation on the training images does, so that validation images
stay unseen.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from zoo.engine.probe.folds import assign_folds
from zoo.engine.probe.lbfgs import Optimum, Smoothing, Softmax, minimise
from zoo.engine.probe.search import (
    HELD_OUT_VALUES,
    EarlyStopping,
    HeldOut,
    HeldOutScore,
    HeldOutScoring,
    SearchResult,
)
from zoo.engine.probe.standardize import RowMatrix, StandardizedFeatures
from zoo.errors import UsageError

# The range of scikit-learn's `LogisticRegressionCV`, two per decade.
STRENGTHS = tuple(10 ** (half / 2) for half in range(-8, 9))
# Where there are too few images for cross-validation.
DEFAULT_STRENGTH = 0.1
# Relative tolerance, maximum iterations and relative stall of `minimise`: in the search, and in the
# first and second stage of the final fit.
SEARCH = (1e-3, 200, 1e-5)
COARSE = (1e-5, 500, 1e-7)
FINAL = (1e-8, 2000, 0.0)


@dataclass(frozen=True)
class Probe:
    """A linear head at its optimum.

    Args:
        weight: `[classes, width]` float32 on the CPU, for raw features.
        bias: `[classes]` float32 on the CPU.
        strength: inverse regularisation, scikit-learn's `C`: the objective is
            `strength * sum of losses + |W|² / 2`, with W the weights for standardized features.
        reason: why this strength.
        searched: strength, mean held-out log loss and held-out accuracy, in search order.
        accuracy: held-out accuracy of each fold at the strength.
        loss: mean log loss of the training images, with class weights.
        converged: whether the gradient proves that the minimum is reached.
        iterations: of the final fit.
        passes: over all features, search included.
        held_out: predictions at the strength, by the fold that did not see the row; None without a
            search, and where there are more than `HELD_OUT_VALUES` logits.
    """

    weight: Tensor
    bias: Tensor
    strength: float
    reason: str
    searched: tuple[tuple[float, float, float], ...] = ()
    accuracy: tuple[float, ...] = ()
    loss: float = 0.0
    converged: bool = True
    iterations: int = 0
    passes: int = 0
    held_out: HeldOut | None = None


def fit_probe(
    features: RowMatrix,
    labels: Tensor,
    classes: int,
    *,
    class_weight: Tensor | None = None,
    label_smoothing: float = 0.0,
    folds: int = 5,
    seed: int = 0,
    strengths: Sequence[float] | None = None,
    strength: float | None = None,
    rows: Tensor | None = None,
    views: int = 1,
    groups: Tensor | None = None,
    device: torch.device | str = "cpu",
    new_score: Callable[[], HeldOutScore] | None = None,
    exact: bool = True,
) -> Probe:
    """Fit a linear head to its optimum, with regularisation selected by cross-validation.

    The strength with the lowest held-out log loss is selected, not that with the highest accuracy:
    accuracy depends on a few images at the margin, and over repeated splits it selected strengths
    that were not better in accuracy, and much worse in log loss.

    A class without images, or with weight 0, gets zero weights, and a bias that never predicts it.
    A class with one image is in the training part of every fold. A constant feature gets the weight
    0. Features are standardized over all rows, held-out ones included; this uses no labels.

    Args:
        features: `[images, width]`, a tensor, an array or a memory-mapped array of any floating
            type; read in chunks if it is large.
        labels: `[images]`, of each row of `features`.
        classes: number of classes.
        class_weight: `[classes]`, as in `CrossEntropyLoss(weight=...)`; only the ratios matter. Log
            losses are weighted by it, accuracies are not.
        label_smoothing: as in `CrossEntropyLoss(label_smoothing=...)`; the held-out log loss is
            without it.
        folds: maximum number of folds of the cross-validation.
        seed: of the folds.
        strengths: to search; by default 17 from 1e-4 to 1e4, largest last, where the search stops
            early once the log loss rises.
        strength: use this one, without a search.
        rows: indices of the rows to train on, in any order; None for all.
        views: number of consecutive rows of one image, which are held out together.
        groups: `[images]`, group of each row, as an integer; equal ones are held out together.
        device: to compute on.
        new_score: select the strength with the highest score of the held-out predictions, among
            all strengths; None to select by log loss.
        exact: whether to fit to the highest precision of the device; else in float32 to a relative
            tolerance of 1e-5, at a fraction of the cost.

    Returns:
        The head. On the CPU, equal arguments give equal bytes at the same number of threads.

    Raises:
        UsageError: the arguments do not match the features, or there are no images.
        DataError: a feature is not finite.
    """
    weighting = _check_arguments(features, labels, classes, class_weight, folds)
    selected, labels, groups = _select_rows(labels.cpu().long(), groups, weighting, rows)
    # Smoothed targets give every class a share.
    present = torch.arange(classes) if label_smoothing else labels.unique()
    standardized = StandardizedFeatures(features, selected, torch.device(device))
    scoring = None if new_score is None else HeldOutScoring(new_score, present, classes)
    fit = _Fit(standardized, labels, present, weighting, label_smoothing, scoring)
    search = SearchResult([])
    if len(present) == 1:
        strength, reason = strength or DEFAULT_STRENGTH, "only one class has images"
    elif strength is not None:
        reason = "as given"
    else:
        fold = assign_folds(labels, groups, folds, seed, views)
        strength, reason, search = _search(fit, fold, strengths or STRENGTHS)
    best, passes = fit.final(strength, search.start, exact)
    weight, bias = standardized.fold_back(best.weights[0, :, :-1], best.weights[0, :, -1])
    weight, bias = _all_classes(weight, bias, present, classes, len(labels))
    return Probe(
        weight=weight,
        bias=bias,
        strength=strength,
        reason=reason,
        searched=tuple(search.searched),
        accuracy=search.accuracy,
        loss=fit.mean_loss(best, strength),
        converged=best.converged,
        iterations=best.iterations,
        passes=passes + search.passes,
        held_out=search.held_out(selected, present, classes),
    )


class _Fit:
    """Fits on all images, or on the training part of each fold.

    Args:
        features: standardized.
        labels: `[images]`.
        present: indices of the classes that have images, or a share of smoothed targets.
        weighting: weights of all classes.
        label_smoothing: share of each target that is spread over all classes.
        scoring: of held-out predictions; None to compare log losses.
    """

    def __init__(
        self,
        features: StandardizedFeatures,
        labels: Tensor,
        present: Tensor,
        weighting: Tensor,
        label_smoothing: float,
        scoring: HeldOutScoring | None = None,
    ) -> None:
        self.scoring = scoring
        self.features, self.classes = features, len(present)
        weights, class_weights = weighting[labels], weighting[present]
        labels = torch.searchsorted(present, labels)
        self.labels = labels.to(features.device)
        self.images = len(labels)
        # Normalised to mean 1, so that strengths with and without class weights are comparable.
        self.weights, self.label_smoothing = weights / weights.mean(), label_smoothing
        # The weight that each image gives to each class beside its own.
        self.smoothing = class_weights / weights.mean() * (label_smoothing / self.classes)
        shares = torch.bincount(labels, self.weights, minlength=self.classes) / self.images
        if label_smoothing:
            shares = (1 - label_smoothing) * shares + self.smoothing
        self.least_share = float(shares.min())

    def final(
        self, strength: float, start: Tensor | None, precise: bool = True
    ) -> tuple[Optimum, int]:
        """Fit all images, to the highest precision of the device unless not `precise`.

        Returns:
            The optimum, and the number of passes over all features.
        """
        counts = torch.ones(1, self.images)
        # Start in float32, at half the cost or less.
        problem = self._problem(counts, torch.float32)
        start = problem.zeros() if start is None else start
        coarse = self._minimise(problem, strength, start, COARSE)
        if not precise:
            weights = coarse.weights.to(self.features.exact)
            return replace(coarse, weights=weights), coarse.evaluations
        exact = self.features.exact
        problem = self._problem(counts, exact)
        final = self._minimise(problem, strength, coarse.weights.to(exact), FINAL)
        return final, coarse.evaluations + final.evaluations

    def mean_loss(self, optimum: Optimum, strength: float) -> float:
        """Return the mean log loss of all images at an optimum, without the penalty."""
        weights = optimum.weights[..., :-1].double()
        return float(optimum.loss[0] - weights.square().sum() / (2 * strength * self.images))

    def search(self, fold: Tensor, strengths: Sequence[float]) -> tuple[float, SearchResult]:
        """Fit each strength on the training part of each fold, and evaluate the held-out part.

        Args:
            fold: `[images]`, -1 for images that are never held out.
            strengths: in ascending order.

        Returns:
            The strength with the lowest log loss, or the highest score, and the result of the
            search.
        """
        count = int(fold.max()) + 1
        problem = self._problem((fold != torch.arange(count)[:, None]), torch.float32)
        result = SearchResult([], rows=torch.nonzero(fold >= 0).flatten())
        result.labels = self.labels.cpu()[result.rows]
        keep = len(result.rows) * self.classes <= HELD_OUT_VALUES
        best, stopping = strengths[0], EarlyStopping()
        highest: tuple[float, ...] = (-float("inf"),)
        current = previous = problem.zeros()
        for strength in strengths:
            # The optimum is a smooth function of log(strength): extrapolate linearly.
            optimum = self._minimise(problem, strength, current + (current - previous), SEARCH)
            previous, current = current, optimum.weights
            if self.scoring is not None:
                self.scoring.start()
            logits: list[Tensor] | None = [] if keep else None
            loss, accuracies = self._held_out(problem, current, fold, count, logits)
            rank = self.scoring.score() if self.scoring else (-loss,)
            result.searched.append((strength, loss, float(accuracies[-1])))
            result.passes += optimum.evaluations + 1
            if rank > highest:
                best, highest = strength, rank
                result.accuracy = tuple(accuracies[:-1].tolist())
                result.start = current.mean(0, keepdim=True)
                result.logits = torch.cat(logits) if logits else None
            # A score may still rise where the loss no longer falls.
            if stopping.update(loss) and self.scoring is None:
                break
        return best, result

    def _held_out(
        self,
        problem: Softmax,
        weights: Tensor,
        fold: Tensor,
        count: int,
        kept: list[Tensor] | None = None,
    ) -> tuple[float, Tensor]:
        """Return the mean held-out log loss, and accuracies: of each fold, then of all images.

        Args:
            problem: of the folds.
            weights: of all folds.
            fold: `[images]`, -1 for images that are never held out.
            count: number of folds.
            kept: receives the held-out logits of each chunk; None to keep none.
        """

        def visit(logits: Tensor, labels: Tensor) -> None:
            if self.scoring is not None:
                self.scoring.update(logits, labels)
            if kept is not None:
                kept.append(logits.to("cpu", torch.float32, copy=True))

        losses, correct = (part.cpu().double() for part in problem.held_out(weights, fold, visit))
        out = fold >= 0
        mean = float((losses * self.weights)[out].sum() / self.weights[out].sum())
        images = torch.bincount(fold[out], minlength=count)
        sums = torch.bincount(fold[out], correct[out], minlength=count)
        return mean, torch.cat([sums / images, sums.sum()[None] / images.sum()])

    def _minimise(
        self, problem: Softmax, strength: float, start: Tensor, limits: tuple[float, int, float]
    ) -> Optimum:
        penalty = 1 / (strength * self.images)
        # The bias is not penalised; its curvature is that of the class frequencies.
        curvature = min(penalty, self.least_share)
        return minimise(problem.at(penalty), start, curvature, *limits)

    def _problem(self, counts: Tensor, dtype: torch.dtype) -> Softmax:
        """Return the problems with the row weights `[problems, images]`."""
        device = self.features.device
        weights = counts.double() * (self.weights / self.images)
        if not self.label_smoothing:
            weights = weights.to(dtype).to(device)
            return Softmax(self.features, self.labels, self.classes, weights, dtype)
        smoothing = Smoothing(
            self.smoothing.to(dtype).to(device), (counts / self.images).to(dtype).to(device)
        )
        weights = (weights * (1 - self.label_smoothing)).to(dtype).to(device)
        return Softmax(self.features, self.labels, self.classes, weights, dtype, smoothing)


def _search(fit: _Fit, fold: Tensor, strengths: Sequence[float]) -> tuple[float, str, SearchResult]:
    """Return the selected strength, the reason, and the result of the search."""
    count = int(fold.max()) + 1
    if count < 2:
        return DEFAULT_STRENGTH, "too few images for cross-validation", SearchResult([])
    best, result = fit.search(fold, sorted(strengths))
    criterion = f"best held-out {fit.scoring.name}" if fit.scoring else "lowest held-out log loss"
    reason = f"{criterion} of {len(result.searched)} strengths in {count} folds"
    return best, reason, result


def _check_arguments(
    features: RowMatrix, labels: Tensor, classes: int, class_weight: Tensor | None, folds: int
) -> Tensor:
    """Check arguments of `fit_probe`, and return the class weights, `[classes]`.

    Raises:
        UsageError: the arguments do not match the features.
    """
    shape = list(features.shape)
    if len(shape) != 2 or shape[0] != len(labels):
        raise UsageError(
            f"features {shape} are not those of {len(labels)} labels",
            "a linear probe reads one row of features for each image",
        )
    if folds < 2:
        raise UsageError(f"{folds} folds are too few for cross-validation", "give at least 2")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise UsageError(f"a label is not one of {classes} classes", "labels count from 0")
    if class_weight is None:
        return torch.ones(classes, dtype=torch.float64)
    weights = class_weight.detach().cpu().double()
    if weights.shape != (classes,) or not bool((torch.isfinite(weights) & (weights >= 0)).all()):
        hint = f"give {classes} finite numbers, none below 0"
        message = f"class weights {list(weights.shape)} do not match {classes} classes"
        raise UsageError(message, hint)
    return weights


def _select_rows(
    labels: Tensor, groups: Tensor | None, weighting: Tensor, rows: Tensor | None
) -> tuple[Tensor | None, Tensor, Tensor | None]:
    """Select the rows whose class has a positive weight; None for all.

    Returns:
        The sorted rows, their labels, and their groups.

    Raises:
        UsageError: there are none.
    """
    selected = torch.arange(len(labels)) if rows is None else rows.cpu().long().sort().values
    selected = selected[weighting[labels[selected]] > 0]
    if not len(selected):
        raise UsageError("there are no images to train a head on", "give at least one")
    if rows is None and len(selected) == len(labels):
        return None, labels, groups
    return selected, labels[selected], None if groups is None else groups[selected]


def _all_classes(
    weight: Tensor, bias: Tensor, present: Tensor, classes: int, images: int
) -> tuple[Tensor, Tensor]:
    """Expand weights and bias of the classes that have images to all classes."""
    weights = torch.zeros(classes, weight.shape[1], dtype=weight.dtype)
    weights[present] = weight
    # Penalised weights sum to 0 over the classes, so the largest logit is at least the mean bias:
    # a class with a lower bias is never predicted.
    lowest = min(float(bias.logsumexp(0)), float(bias.mean())) - torch.tensor(images + 1.0).log()
    biases = torch.full((classes,), float(lowest), dtype=bias.dtype)
    biases[present] = bias
    return weights.float(), biases.float()
