"""Warn of licences with conditions beyond attribution."""

from __future__ import annotations

import logging

from zoo.registry.licenses import ADVICE, classify, in_words

log = logging.getLogger("zoo")

# A loop that loads a model a thousand times warns once.
_warned: set[tuple[str, str]] = set()


def warn_license_once(license: str | None, subject: str) -> None:
    """Warn of a licence with conditions, once per process for the same weights.

    A missing licence raises no warning: nearly all of torchvision's weights state none, and a
    warning at every use would be ignored. `zoo show`, the plan and `run.json` show it.

    Args:
        license: of the weights.
        subject: start of the message, continued by `licensed`.
    """
    advice = ADVICE.get(classify(license))
    if license is None or advice is None or (license, subject) in _warned:
        return
    _warned.add((license, subject))
    log.warning("%s licensed %s: %s", subject, in_words(license), advice)


def reset_notices() -> None:
    """Clear the record of warnings, so that each is repeated."""
    _warned.clear()
