"""Answer `none of these` where no class is probable enough."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from zoo.errors import UsageError


def add_answers(
    predictions: Iterable[Mapping[str, Any]], least: float, task: str
) -> list[dict[str, Any]]:
    """Return predictions with `answer`: the most probable class, None where it is below the least.

    Args:
        predictions: of images, as the task returns them.
        least: probability of an answer.
        task: name of the task, for messages.

    Raises:
        UsageError: the task's predictions have no probabilities.
    """
    answered = []
    for each in predictions:
        items: list[Mapping[str, Any]] = each["predictions"]
        best = max(items, key=lambda item: item.get("probability", -1), default={})
        if not {"class", "probability"} <= best.keys():
            message = f"predictions of {task} have no probabilities"
            raise UsageError(message, "omit --min-probability")
        answer = best["class"] if best["probability"] >= least else None
        answered.append({**each, "answer": answer})
    return answered
