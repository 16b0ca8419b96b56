"""The linear probe: a linear head trained to its optimum on kept features.

Multinomial logistic regression over standardised features with an L2 penalty, as in CLIP (Radford
et al., 2021, arXiv 2103.00020, appendix A.3) and in Kornblith et al. (2019, arXiv 1805.08974,
appendix A.4): L-BFGS on all images at once, and the strength of the penalty searched on a
logarithmic scale. Those choose it on a validation set; here the folds of the training images do,
so that the images to validate on stay unseen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from zoo.engine.probe.lbfgs import Optimum, Softmax, minimise
from zoo.engine.probe.standardize import Matrix, Standard
from zoo.errors import UsageError
from zoo.seeding import shuffled

# The range of scikit-learn's `LogisticRegressionCV`, two to a decade.
STRENGTHS = tuple(10 ** (half / 2) for half in range(-8, 9))
# Where no image can be held out to choose by.
DEFAULT_STRENGTH = 0.1
# A held-out log loss that is a hundredth above the best twice in a row has turned, and one that
# once fell and then twice in a row gains less than that, or next to nothing, will gain no more.
MARGIN, NOTHING, TURNS, RESTS = 0.01, 0.005, 2, 2
# While searching, on the way to the end, and there: how far above its minimum the loss may be, for
# its size; after how many iterations to stop anyway; and which gain of an iteration is none.
SEARCH = (1e-3, 200, 1e-5)
NEAR = (1e-5, 500, 1e-7)
LAST = (1e-8, 2000, 0.0)


@dataclass(frozen=True)
class Probe:
    """A linear head at its optimum.

    Args:
        weight: `[classes, width]` float32 on the CPU, for features as they are.
        bias: `[classes]` float32 on the CPU.
        strength: what was minimised is `strength * sum of losses + |W|² / 2`, with W the weights
            for standardised features: scikit-learn's `C`. Less of it regularises more.
        reason: why this strength.
        searched: strength, held-out mean log loss and held-out accuracy, in the order tried.
        accuracy: held-out accuracy of each fold at the strength.
        loss: mean log loss of the training images, weighted as asked.
        converged: whether the minimum is reached, proven by the gradient.
        iterations: how many the last fit took.
        passes: how often all features were gone through, for everything.
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


def fit_probe(
    features: Matrix,
    labels: Tensor,
    classes: int,
    *,
    class_weight: Tensor | None = None,
    folds: int = 5,
    seed: int = 0,
    strengths: Sequence[float] | None = None,
    strength: float | None = None,
    rows: Tensor | None = None,
    views: int = 1,
    device: torch.device | str = "cpu",
) -> Probe:
    """Train a linear head to its optimum, its regularisation chosen by cross-validation.

    Of the strengths the one with the least held-out log loss is taken, not the one with the most
    right: accuracy counts a few images at the margin, and over repeated splits it chose a
    strength that was not better in accuracy, and much worse in log loss.

    A class without images, or of weight 0, gets no weights, and a bias with which it is never
    predicted. A class with one image is in every fold's training part. A feature that does not
    vary gets the weight 0. Features are standardised over all rows, those held out too; no label
    is seen by it.

    Args:
        features: `[images, width]`: a tensor, an array, or a memory-mapped array of any floating
            type; read in chunks where it is large.
        labels: `[images]`, of each row of `features`.
        classes: how many there are.
        class_weight: `[classes]`, as `CrossEntropyLoss(weight=...)` takes it; only the ratios
            count. Log losses are weighted by it, accuracies are not.
        folds: into how many parts the images are split to choose the strength.
        seed: of the split.
        strengths: to choose among; by default 17 from 1e-4 to 1e4, of which the weakest are left
            out once the log loss has turned.
        strength: takes this one, and chooses nothing.
        rows: numbers of the rows to train on, in any order; None for all.
        views: so many rows in turn are of one image, and are held out together.
        device: where to compute.

    Returns:
        The head. On the CPU the same arguments give the same bytes, at the same thread count.

    Raises:
        UsageError: an argument is not for these features, or there is nothing to train on.
        DataError: a feature is not finite.
    """
    weighting = _checked(features, labels, classes, class_weight, folds, rows)
    device = torch.device(device)
    chosen, labels = _chosen(labels.cpu().long(), weighting, rows)
    present = labels.unique()
    standard = Standard(features, chosen, device)
    fit = _Fit(standard, torch.searchsorted(present, labels), len(present), weighting[labels])
    if len(present) == 1:
        strength, reason, search = strength or DEFAULT_STRENGTH, "only one class has images", None
    elif strength is not None:
        reason, search = "as given", None
    else:
        strength, reason, search = _search(fit, labels, folds, seed, strengths or STRENGTHS, views)
    best, passes = fit.last(strength, search.start if search else None)
    weight, bias = standard.fold_back(best.weights[0, :, :-1], best.weights[0, :, -1])
    weight, bias = _spread(weight, bias, present, classes, len(labels))
    penalty = best.weights[..., :-1].double().square().sum() / (2 * strength * len(labels))
    return Probe(
        weight=weight,
        bias=bias,
        strength=strength,
        reason=reason,
        searched=tuple(search.searched) if search else (),
        accuracy=tuple(search.accuracy) if search else (),
        loss=float(best.loss[0] - penalty),
        converged=best.converged,
        iterations=best.iterations,
        passes=passes + (search.passes if search else 0),
    )


@dataclass
class _Search:
    """What cross-validation found.

    Args:
        searched: strength, mean log loss and accuracy, in order.
        accuracy: of each fold at the best strength.
        start: weights of the folds at the best strength, side by side.
        passes: how often all features were gone through.
    """

    searched: list[tuple[float, float, float]]
    accuracy: tuple[float, ...] = ()
    start: Tensor | None = None
    passes: int = 0


class _Fit:
    """The images of a fit: what counts, and the problems made of it.

    Args:
        features: standardised.
        labels: `[images]`, among the classes that have images.
        classes: how many those are.
        weights: `[images]`, of their classes.
    """

    def __init__(self, features: Standard, labels: Tensor, classes: int, weights: Tensor) -> None:
        self.features, self.classes = features, classes
        self.labels = labels.to(features.device)
        self.images = len(labels)
        # Their mean is 1, so that a strength means the same with and without them.
        self.weights = weights / weights.mean()
        shares = torch.bincount(labels, self.weights, minlength=classes) / self.images
        self.least_share = float(shares.min())

    def last(self, strength: float, start: Tensor | None) -> tuple[Optimum, int]:
        """Fit all images, as exactly as the device can.

        Returns:
            The optimum, and how often all features were gone through.
        """
        everything = torch.ones(1, self.images)
        # Most of the way in float32, at half the price and less.
        problem = self._problem(everything, torch.float32)
        begin = problem.zeros() if start is None else start
        near = self._minimise(problem, strength, begin, NEAR)
        exact = self.features.exact
        problem = self._problem(everything, exact)
        last = self._minimise(problem, strength, near.weights.to(exact), LAST)
        return last, near.evaluations + last.evaluations

    def search(self, fold: Tensor, strengths: Sequence[float]) -> tuple[float, _Search]:
        """Fit each strength on the images that each fold leaves, and see what it held out.

        Args:
            fold: `[images]`, -1 where no fold holds the image out.
            strengths: to try, from the least to the greatest.

        Returns:
            The strength of the least log loss, and what was found.
        """
        count = int(fold.max()) + 1
        problem = self._problem((fold != torch.arange(count)[:, None]), torch.float32)
        found = _Search([])
        best, ended = strengths[0], _Ended()
        last = before = problem.zeros()
        for strength in strengths:
            # The optimum moves smoothly with the strength's logarithm: go on as it went.
            optimum = self._minimise(problem, strength, last + (last - before), SEARCH)
            before, last = last, optimum.weights
            loss, shares = self._held_out(problem, last, fold, count)
            found.searched.append((strength, loss, float(shares[-1])))
            found.passes += optimum.evaluations + 1
            if loss < ended.least:
                best = strength
                found.accuracy = tuple(shares[:-1].tolist())
                found.start = last.mean(0, keepdim=True)
            if ended.after(loss):
                break
        return best, found

    def _held_out(
        self, problem: Softmax, weights: Tensor, fold: Tensor, count: int
    ) -> tuple[float, Tensor]:
        """Return the mean log loss, and accuracies: of each fold, and of all at the end."""
        losses, right = (part.cpu().double() for part in problem.held_out(weights, fold))
        out = fold >= 0
        mean = float((losses * self.weights)[out].sum() / self.weights[out].sum())
        images = torch.bincount(fold[out], minlength=count)
        shares = torch.bincount(fold[out], right[out], minlength=count)
        return mean, torch.cat([shares / images, shares.sum()[None] / images.sum()])

    def _minimise(
        self, problem: Softmax, strength: float, start: Tensor, limits: tuple[float, int, float]
    ) -> Optimum:
        penalty = 1 / (strength * self.images)
        # Nothing penalises the bias; its curvature is that of the classes' shares.
        curvature = min(penalty, self.least_share)
        return minimise(problem.at(penalty), start, curvature, *limits)

    def _problem(self, counts: Tensor, dtype: torch.dtype) -> Softmax:
        """Return the problems whose images are counted by `[problems, images]`."""
        share = counts.double() * (self.weights / self.images)
        share = share.to(dtype).to(self.features.device)
        return Softmax(self.features, self.labels, self.classes, share, dtype)


class _Ended:
    """Says when weaker regularisation has no more to give."""

    def __init__(self) -> None:
        self.first: float | None = None
        self.least = self.mark = float("inf")
        self.turns = self.rests = 0

    def after(self, loss: float) -> bool:
        """Return whether to stop after one more held-out log loss."""
        if self.first is None:
            self.first = self.mark = loss
        self.least = min(self.least, loss)
        self.turns = self.turns + 1 if loss > self.least * (1 + MARGIN) else 0
        gained = loss < self.mark - max(MARGIN * self.mark, NOTHING)
        # While it has not begun to fall, so much regularisation has let nothing be learned.
        self.rests = 0 if gained or self.mark == self.first else self.rests + 1
        self.mark = loss if gained else self.mark
        return self.turns == TURNS or self.rests == RESTS


def _search(
    fit: _Fit, labels: Tensor, folds: int, seed: int, strengths: Sequence[float], views: int
) -> tuple[float, str, _Search | None]:
    """Return the strength to take, why, and what was searched."""
    fold = deal_folds(labels[::views], folds, seed).repeat_interleave(views)
    count = int(fold.max()) + 1
    if count < 2:
        return DEFAULT_STRENGTH, "too few images to hold any out", None
    best, found = fit.search(fold, sorted(strengths))
    return best, f"least log loss held out, of {len(found.searched)} in {count} folds", found


def deal_folds(labels: Tensor, folds: int, seed: int) -> Tensor:
    """Return the fold of each image, every class dealt out evenly; -1 where it is never held out.

    An image alone in its class is never held out, since nothing else could teach the class. There
    are no more folds than the largest class has images.

    Args:
        labels: `[images]`.
        folds: how many at most.
        seed: of the order in which they are dealt.
    """
    sizes = torch.bincount(labels)
    count = min(folds, int(sizes.max()))
    order = shuffled(len(labels), seed)
    order = order[labels[order].argsort(stable=True)]
    order = order[sizes[labels[order]] > 1]
    fold = torch.full_like(labels, -1)
    if count > 1:
        # On from where the class before ended, so that the folds are of one size.
        fold[order] = torch.arange(len(order)) % count
    return fold


def _checked(
    features: Matrix,
    labels: Tensor,
    classes: int,
    class_weight: Tensor | None,
    folds: int,
    rows: Tensor | None,
) -> Tensor:
    """Return `[classes]` weights.

    Raises:
        UsageError: an argument is not for these features.
    """
    shape = list(features.shape)
    if len(shape) != 2 or shape[0] != len(labels):
        raise UsageError(
            f"features {shape} are not those of {len(labels)} labels",
            "a linear probe reads one row of features for each image",
        )
    if folds < 2:
        raise UsageError(f"{folds} folds hold nothing out", "give at least 2")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise UsageError(f"a label is not one of {classes} classes", "labels count from 0")
    if class_weight is None:
        return torch.ones(classes, dtype=torch.float64)
    weights = class_weight.detach().cpu().double()
    if weights.shape != (classes,) or not bool((torch.isfinite(weights) & (weights >= 0)).all()):
        hint = f"give {classes} numbers, none below 0"
        raise UsageError(f"class weights {list(weights.shape)} are not for them", hint)
    return weights


def _chosen(labels: Tensor, weighting: Tensor, rows: Tensor | None) -> tuple[Tensor | None, Tensor]:
    """Return the rows that count, sorted, None for all; and their labels.

    Raises:
        UsageError: there are none.
    """
    chosen = torch.arange(len(labels)) if rows is None else rows.cpu().long().sort().values
    chosen = chosen[weighting[labels[chosen]] > 0]
    if not len(chosen):
        raise UsageError("there are no images to train a head on", "give at least one")
    whole = rows is None and len(chosen) == len(labels)
    return None if whole else chosen, labels[chosen]


def _spread(
    weight: Tensor, bias: Tensor, present: Tensor, classes: int, images: int
) -> tuple[Tensor, Tensor]:
    """Return weights and bias of all classes, from those that have images."""
    everything = torch.zeros(classes, weight.shape[1], dtype=weight.dtype)
    everything[present] = weight
    # Weights that are penalised sum to 0 over the classes, so some class always has more than
    # their mean bias.
    never = min(float(bias.logsumexp(0)), float(bias.mean())) - torch.tensor(images + 1.0).log()
    biases = torch.full((classes,), float(never), dtype=bias.dtype)
    biases[present] = bias
    return everything.float(), biases.float()
