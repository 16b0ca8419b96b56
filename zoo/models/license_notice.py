"""Saying under which terms weights are used, where they ask for more than credit."""

from __future__ import annotations

import logging

from zoo.registry.licenses import ADVICE, classify, in_words

log = logging.getLogger("zoo")

# A loop that loads a model a thousand times is told once, and so is a command.
_told: set[tuple[str, str]] = set()


def tell_terms(license: str | None, whose: str) -> None:
    """Warn of a licence that a user has to mind, once for the same weights in this process.

    Where none is stated nothing is said here: that is so of nearly all of torchvision's weights,
    and a warning at every use would soon be read by nobody. `zoo show`, the plan and `run.json`
    say it.

    Args:
        license: of the weights.
        whose: the weights, as a sentence begins that goes on with `licensed`.
    """
    advice = ADVICE.get(classify(license))
    if license is None or advice is None or (license, whose) in _told:
        return
    _told.add((license, whose))
    log.warning("%s licensed %s: %s", whose, in_words(license), advice)


def forget_notices() -> None:
    """Have every notice be given again."""
    _told.clear()
