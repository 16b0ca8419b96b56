"""A linear head from sums over the images, in one pass: ridge regression on one-hot targets.

The sums of parts of the images merge into those of all, so parts can be summed anywhere, and memory
does not depend on the number of images. Merged in a fixed order, they have the same bytes whichever
process computed them. Features are standardized and the bias is not penalised, as in
`zoo.engine.probe.logistic`. The penalty minimises generalised cross-validation (Golub, Heath &
Wahba, 1979); one eigendecomposition gives its values for all penalties.

Scores of the regression estimate the probability of each class, so their argmax is the prediction;
as logits they are too small by far. They are scaled by the factor with the least log loss on
leave-one-out scores, so that softmax of the head's outputs gives probabilities.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from zoo.engine.probe.standardize import CONSTANT, TINY
from zoo.errors import DataError, UsageError

# Relative to the number of images: the eigenvalues of a correlation matrix have the mean 1. Below
# the first, of fewer images than features, residuals and degrees of freedom are only rounding.
PENALTIES = tuple(10 ** (quarter / 4) for quarter in range(-20, 13))
BLOCK_ROWS = 4096
# Of the factor of the scores.
LARGEST_SCALE, BISECTIONS = 1e6, 40

Item = TypeVar("Item")
Blocks = Iterable[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class FeatureSums:
    """Sums over the features of images, in float64; those of parts merge into those of all.

    The second moment is central: raw sums of squares lose their digits beside a large mean.

    Args:
        counts: `[classes]`, number of images.
        sums: `[classes, width]`, of the features of each class.
        mean: `[width]`, of all features.
        scatter: `[width, width]`, of the deviations from the mean.
    """

    counts: Tensor
    sums: Tensor
    mean: Tensor
    scatter: Tensor

    @classmethod
    def empty(cls, classes: int, width: int) -> FeatureSums:
        """Return the sums of no images."""
        exact = {"dtype": torch.float64}
        return cls(
            torch.zeros(classes, **exact),  # type: ignore[call-overload]
            torch.zeros(classes, width, **exact),  # type: ignore[call-overload]
            torch.zeros(width, **exact),  # type: ignore[call-overload]
            torch.zeros(width, width, **exact),  # type: ignore[call-overload]
        )

    @classmethod
    def of(cls, blocks: Blocks, classes: int, width: int) -> FeatureSums:
        """Sum blocks of features `[rows, width]` and labels `[rows]`.

        Raises:
            DataError: a feature is not finite.
        """
        total = cls.empty(classes, width)
        for features, labels in blocks:
            for first in range(0, len(features), BLOCK_ROWS):
                rows = slice(first, first + BLOCK_ROWS)
                total = total.merge(cls._of_block(features[rows].double(), labels[rows], classes))
        if not bool(torch.isfinite(total.scatter).all()):
            column = int((~torch.isfinite(total.scatter.diagonal())).nonzero()[0])
            message = f"feature {column} of the images is not finite"
            raise DataError(message, "give --precision fp32, or other weights")
        return total

    @classmethod
    def _of_block(cls, features: Tensor, labels: Tensor, classes: int) -> FeatureSums:
        counts = torch.bincount(labels, minlength=classes).double()
        sums = torch.zeros(classes, features.shape[1], dtype=torch.float64)
        sums.index_add_(0, labels, features)
        mean = features.mean(0)
        deviations = features - mean
        return cls(counts, sums, mean, deviations.T @ deviations)

    @property
    def images(self) -> int:
        """Number of images."""
        return int(self.counts.sum())

    def merge(self, other: FeatureSums) -> FeatureSums:
        """Return the sums of the images of both."""
        if not other.images or not self.images:
            return other if not self.images else self
        total = self.images + other.images
        shift = other.mean - self.mean
        weight = self.images * other.images / total
        return FeatureSums(
            self.counts + other.counts,
            self.sums + other.sums,
            self.mean + shift * (other.images / total),
            self.scatter + other.scatter + torch.outer(shift, shift) * weight,
        )


@dataclass(frozen=True)
class RidgeHead:
    """A linear head at the optimum of ridge regression, whose outputs are class scores.

    Args:
        weight: `[classes, width]` float64, for raw features.
        bias: `[classes]` float64.
        penalty: of the squared weights for standardized features, scikit-learn's `alpha`.
        searched: penalty and score of generalised cross-validation, in search order.
        images: number of images.
        mean: `[width]`, of the features.
        root: `[width, width]`, of the inverse of the penalised scatter: the leverage of an image is
            `1 / images + |(x - mean) @ root|²`.
    """

    weight: Tensor
    bias: Tensor
    penalty: float
    searched: tuple[tuple[float, float], ...]
    images: int
    mean: Tensor
    root: Tensor

    def scores(self, features: Tensor) -> Tensor:
        """Return the scores of features, `[rows, classes]` float64."""
        return features.double() @ self.weight.T + self.bias

    def held_out_scores(self, features: Tensor, labels: Tensor) -> Tensor:
        """Return the scores that each image would get if it had not been summed, without a fit."""
        leverage = ((features.double() - self.mean) @ self.root).square().sum(1)
        leverage = (leverage + 1 / self.images).clamp(max=1 - 1e-9)[:, None]
        targets = torch.nn.functional.one_hot(labels, len(self.weight)).double()
        return (self.scores(features) - leverage * targets) / (1 - leverage)


def solve_ridge(sums: FeatureSums, penalties: Sequence[float] | None = None) -> RidgeHead:
    """Return the head of the penalty with the least generalised cross-validation.

    Args:
        sums: of the training images.
        penalties: to search; by default 33 from 1e-5 to 1e3 times the number of images.

    Raises:
        UsageError: there are no images.
    """
    images = sums.images
    if not images:
        raise UsageError("there are no images to fit a head to")
    # Rounding makes a constant feature's deviation tiny, as in `StandardizedFeatures`.
    deviation = (sums.scatter.diagonal() / images).sqrt()
    constant = (deviation <= CONSTANT * sums.mean.abs()) | (deviation <= TINY)
    inverse = torch.where(constant, 0.0, 1 / deviation)
    with one_thread():
        values, vectors = torch.linalg.eigh(inverse[:, None] * sums.scatter * inverse)
        values = values.clamp(min=0)
        cross = (sums.sums - sums.counts[:, None] * sums.mean) * inverse
        projected = cross @ vectors
        energy = projected.square().sum(0)
        total = float((sums.counts * (1 - sums.counts / images)).sum())
        candidates = penalties or [images * each for each in PENALTIES]
        searched = tuple((each, _gcv(each, values, energy, total, images)) for each in candidates)
        penalty = min(searched, key=lambda pair: pair[1])[0]
        weight = (projected / (values + penalty)) @ vectors.T * inverse
        bias = sums.counts / images - weight @ sums.mean
        root = inverse[:, None] * vectors / (values + penalty).sqrt()
    return RidgeHead(weight, bias, penalty, searched, images, sums.mean, root)


def _gcv(penalty: float, values: Tensor, energy: Tensor, total: float, images: int) -> float:
    """Return the score of generalised cross-validation of a penalty, summed over the classes."""
    shrunk = values + penalty
    residual = total - float((energy * (2 / shrunk - values / shrunk.square())).sum())
    freedom = 1 + float((values / shrunk).sum())
    left = max(1 - freedom / images, 1e-12)
    return max(residual, 0.0) / images / left**2


def fit_scale(scores: Tensor, labels: Tensor) -> float:
    """Return the factor of scores whose softmax has the least mean log loss.

    Args:
        scores: `[rows, classes]`, of images that the scores were not fitted to.
        labels: `[rows]`.
    """
    own = scores.gather(1, labels[:, None])[:, 0]

    def slope(scale: float) -> float:
        expected = ((scale * scores).softmax(1) * scores).sum(1)
        return float((expected - own).mean())

    low, high = 0.0, LARGEST_SCALE
    if slope(low) >= 0:
        return 1.0  # the scores contain nothing of the labels
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return (low + high) / 2


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute each product in one thread: the order of a sum depends on their number."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def merge_sums(
    parts: Sequence[Item], summed: Callable[[Item], FeatureSums], workers: int
) -> FeatureSums:
    """Sum parts in several threads, and merge them in their order.

    Args:
        parts: of the images, at least one.
        summed: returns the sums of a part.
        workers: number of threads; the result does not depend on it.
    """
    with one_thread(), ThreadPoolExecutor(workers, thread_name_prefix="zoo-sum") as pool:
        pending: list[Future[FeatureSums]] = []
        remaining, total = iter(parts), None
        while True:
            # No more than twice as many as are summed at once are in memory.
            while len(pending) < 2 * workers and (part := next(remaining, None)) is not None:
                pending.append(pool.submit(summed, part))
            if not pending:
                assert total is not None
                return total
            done = pending.pop(0).result()
            total = done if total is None else total.merge(done)
