"""The search of the penalty: scores of held-out predictions, and when to stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

# Stop after two consecutive strengths whose held-out loss is 1 % above the best, or, once it has
# fallen, after two without an improvement of 1 % (at least 0.005).
MARGIN, MIN_GAIN, MAX_WORSE, MAX_STALLED = 0.01, 0.005, 2, 2


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
