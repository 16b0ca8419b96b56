"""Examine the installation."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zoo.diagnosis.check import Diagnosis


def doctor() -> Diagnosis:
    """Check versions, configuration, plugins, cache, disk, devices, precision and engines.

    Returns:
        `checks`, each with `name`, `status` (`ok`, `warning` or `error`), `summary` and `hint`;
        `ok`, whether none failed. What is broken is a check that failed, not an error.
    """
    from zoo.diagnosis.check import Diagnosis
    from zoo.diagnosis.examine import examine

    return Diagnosis(tuple(examine()))
