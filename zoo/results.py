"""Types of predictions and metrics, as the built-in tasks return them."""

from __future__ import annotations

from typing import Required, TypedDict

# In this syntax because `class` is a keyword.
PredictedClass = TypedDict(
    "PredictedClass",
    {"class": Required[str], "probability": float, "fraction": float},
    total=False,
)
PredictedClass.__doc__ = (
    """A class of an image, with its probability, or its share of the pixels."""
)


class Prediction(TypedDict, total=False):
    """The prediction of an image, or the error if it cannot be read.

    A plugin's task may return other keys.
    """

    path: Required[str]
    predictions: list[PredictedClass]
    mask: str | None
    overlay: str | None
    explanation: str | None
    answer: str | None
    error: str


class ClassMetrics(TypedDict, total=False):
    """Metrics of the images, or the pixels, of one class."""

    images: int
    top1: float | None
    pixels: int
    iou: float | None


class Metrics(TypedDict, total=False):
    """Metrics of a split: `loss`, and accuracies in 0..1.

    A plugin's task may return others; so do metrics of the user's.
    """

    split: str
    images: Required[int]
    loss: Required[float]
    top1: float
    top5: float
    balanced_accuracy: float
    chance: float | None
    never_predicted: list[str]
    confusion: list[list[int]] | None
    miou: float
    pixel_accuracy: float
    per_class: dict[str, ClassMetrics]
    engine: str
    bad_images: dict[str, str]
    incomplete_images: list[str]
