"""The search of the penalty: scores of held-out predictions, and when to stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

# Stop after two consecutive strengths whose held-out loss is 1 % above the best, or, once it has
# fallen, after two without an improvement of 1 % (at least 0.005).
MARGIN, MIN_GAIN, MAX_WORSE, MAX_STALLED = 0.01, 0.005, 2, 2


# 128 MB in float32, twice while the search runs.
HELD_OUT_VALUES = 1 << 25


@dataclass(frozen=True)
class HeldOut:
    """Predictions of training images by heads that were fitted without them.

    Args:
        rows: `[n]`, of the features.
        logits: `[n, classes]` float32 on the CPU, of all classes; those without images have the
            lowest value.
        labels: `[n]`.
    """

    rows: Tensor
    logits: Tensor
    labels: Tensor


@dataclass
class SearchResult:
    """Result of the search by cross-validation.

    Args:
        searched: strength, mean log loss and accuracy, in search order.
        accuracy: of each fold at the best strength.
        start: mean of the folds' weights at the best strength.
        passes: over all features.
        rows: `[n]` that are held out, as indices of those that are fitted.
        labels: `[n]`, among the classes that have images.
        logits: `[n, classes that have images]` at the best strength; None where there are too many.
    """

    searched: list[tuple[float, float, float]]
    accuracy: tuple[float, ...] = ()
    start: Tensor | None = None
    passes: int = 0
    rows: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    labels: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))
    logits: Tensor | None = None

    def held_out(self, selected: Tensor | None, present: Tensor, classes: int) -> HeldOut | None:
        """Return the predictions of the best strength; None where there were too many.

        Args:
            selected: rows of the features that are fitted; None for all.
            present: classes that have images.
            classes: number of all.
        """
        if self.logits is None:
            return None
        whole = torch.full((len(self.logits), classes), torch.finfo(torch.float32).min)
        whole[:, present] = self.logits
        rows = self.rows if selected is None else selected[self.rows]
        return HeldOut(rows, whole, present[self.labels])


class HeldOutScore(Protocol):
    """Scores the held-out predictions of one strength; a new one for each."""

    name: str

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Accumulate logits `[rows, classes]` and labels `[rows]`."""
        ...

    def score(self) -> tuple[float, ...]:
        """Return the score, higher is better."""
        ...


class HeldOutScoring:
    """Scores held-out predictions, with the logits of all classes.

    Args:
        new_score: returns a new score.
        present: `[classes that have images]`, their indices.
        classes: number of all classes.
    """

    def __init__(self, new_score: Callable[[], HeldOutScore], present: Tensor, classes: int):
        self.new_score, self.present, self.classes = new_score, present, classes
        self.name = ""

    def start(self) -> None:
        """Start the next strength."""
        self.current = self.new_score()
        self.name = self.current.name

    def update(self, logits: Tensor, labels: Tensor) -> None:
        """Accumulate logits and labels among the classes that have images."""
        present = self.present.to(logits.device)
        # Classes without images are never predicted.
        whole = logits.new_full((len(logits), self.classes), torch.finfo(logits.dtype).min)
        whole[:, present] = logits
        self.current.update(whole, present[labels])

    def score(self) -> tuple[float, ...]:
        """Return the score of the strength."""
        return self.current.score()


class EarlyStopping:
    """Stops the search when weaker regularisation no longer improves the held-out loss."""

    def __init__(self) -> None:
        self.first: float | None = None
        self.best = self.reference = float("inf")
        self.worse = self.stalled = 0

    def update(self, loss: float) -> bool:
        """Record the held-out loss of the next strength, and return whether to stop."""
        if self.first is None:
            self.first = self.reference = loss
        self.best = min(self.best, loss)
        self.worse = self.worse + 1 if loss > self.best * (1 + MARGIN) else 0
        improved = loss < self.reference - max(MARGIN * self.reference, MIN_GAIN)
        # Until the loss first falls, regularisation is too strong for the head to learn.
        self.stalled = 0 if improved or self.reference == self.first else self.stalled + 1
        self.reference = loss if improved else self.reference
        return self.worse == MAX_WORSE or self.stalled == MAX_STALLED
