"""Warning of licences that ask for more than credit."""

from __future__ import annotations

import logging

from zoo.registry.licenses import ADVICE, classify, in_words

log = logging.getLogger("zoo")

# One warning for a loop that loads a model a thousand times.
_warned: set[tuple[str, str]] = set()


def warn_license_once(license: str | None, subject: str) -> None:
    """Warn of a licence with conditions, once for the same weights in this process.

    An unstated licence raises no warning: nearly all of torchvision's weights have none, and a
    warning at every use would be ignored. `zoo show`, the plan and `run.json` show it.

    Args:
        license: of the weights.
        subject: the weights, as the beginning of a sentence that continues with `licensed`.
    """
    advice = ADVICE.get(classify(license))
    if license is None or advice is None or (license, subject) in _warned:
        return
    _warned.add((license, subject))
    log.warning("%s licensed %s: %s", subject, in_words(license), advice)


def forget_notices() -> None:
    """Repeat every notice from here on."""
    _warned.clear()
