"""Statistics of predictions, from counts and from the recorded results of samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

# Quantile of the normal distribution for an interval of 95 %.
Z95 = 1.959963984540054


def wilson_interval(correct: int, images: int, z: float = Z95) -> tuple[float, float]:
    """Return the Wilson score interval of a proportion (Wilson, 1927), 95 % by default.

    Args:
        correct: number of successes.
        images: number of trials; 0 gives the whole range.
        z: quantile of the standard normal distribution.
    """
    if not images:
        return 0.0, 1.0
    share, square = correct / images, z * z
    center = (share + square / (2 * images)) / (1 + square / images)
    half = z * math.sqrt(share * (1 - share) / images + square / (4 * images**2))
    half /= 1 + square / images
    low = max(center - half, 0.0) if correct else 0.0
    return low, min(center + half, 1.0) if correct < images else 1.0


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class.

    Args:
        precision: share of the images predicted as the class that are of it; None without any.
        recall: share of its images that are predicted as it; None without images.
        f1: harmonic mean of both; None where one is undefined.
        images: number of its images.
        predicted: number of images predicted as it.
    """

    precision: float | None
    recall: float | None
    f1: float | None
    images: int
    predicted: int


def class_scores(confusion: Sequence[Sequence[int]]) -> list[ClassScores]:
    """Return the scores of each class from counts, true classes as rows."""
    predicted = [sum(column) for column in zip(*confusion, strict=True)]
    scores = []
    for index, row in enumerate(confusion):
        correct, images, times = row[index], sum(row), predicted[index]
        precision = correct / times if times else None
        recall = correct / images if images else None
        f1 = 2 * correct / (images + times) if images and times else None
        scores.append(ClassScores(precision, recall, f1, images, times))
    return scores


def frequent_confusions(confusion: Sequence[Sequence[int]]) -> list[tuple[int, int, int]]:
    """Return count, true and predicted class of each confusion, the most frequent first."""
    confusions = [
        (count, row, column)
        for row, each in enumerate(confusion)
        for column, count in enumerate(each)
        if count and row != column
    ]
    return sorted(confusions, key=lambda each: (-each[0], each[1], each[2]))


# Least probabilities of an answer that the report shows.
THRESHOLDS = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


def answered_above(
    confidences: Sequence[float], correct: Sequence[bool]
) -> list[tuple[float, int, int]]:
    """Return how many images are answered at each of `THRESHOLDS`, and how many of them rightly.

    Args:
        confidences: probability of the predicted class of each image.
        correct: whether it is the true class.
    """
    pairs = list(zip(confidences, correct, strict=True))
    rows = []
    for least in THRESHOLDS:
        answered = [right for confidence, right in pairs if confidence >= least]
        rows.append((least, len(answered), sum(answered)))
    return rows


def reliability_bins(
    confidences: Sequence[float], correct: Sequence[bool], bins: int = 10
) -> list[tuple[float, float, int]]:
    """Return mean confidence, accuracy and size of each bin of equal width that is not empty.

    Args:
        confidences: probability of the predicted class of each image.
        correct: whether it is the true class.
        bins: number of bins of `(0, 1]`; a confidence on a bound is in the lower one.
    """
    members: list[list[int]] = [[] for _ in range(bins)]
    for index, confidence in enumerate(confidences):
        members[min(max(math.ceil(confidence * bins) - 1, 0), bins - 1)].append(index)
    return [
        (
            sum(confidences[index] for index in each) / len(each),
            sum(correct[index] for index in each) / len(each),
            len(each),
        )
        for each in members
        if each
    ]


def expected_calibration_error(bins: Sequence[tuple[float, float, int]]) -> float:
    """Return the mean distance of confidence and accuracy over the images (Guo et al., 2017)."""
    total = sum(size for *_, size in bins)
    return sum(abs(confidence - share) * size for confidence, share, size in bins) / max(total, 1)
