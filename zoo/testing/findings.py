"""Checks and their results."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PASSED, FAILED, EXCEPTED, NOT_APPLICABLE = "passed", "failed", "excepted", "not applicable"
NOT_TRIED = "not tried"


class CheckFailed(Exception):
    """A requirement is violated; the text contains the values observed."""


class NotApplicable(Exception):
    """The check does not apply; the text is the reason."""


class NotTried(Exception):
    """The check cannot be made here; the text is the reason."""


@dataclass(frozen=True)
class Check:
    """One requirement and the function that checks it.

    Args:
        name: identifier, such as `frozen_stays_frozen`.
        requirement: the requirement as a sentence.
        kind: what it reads: `description`, `structure`, `values` or `weights` of a network, `task`
            or `plugin`.
        run: takes a `Subject` or `TaskSubject`; returns the values observed, or raises
            `CheckFailed`, `NotApplicable` or `NotTried`.
        encoders: whether it also applies to networks that cannot be fine-tuned.
        needs: checks that use the same code; where one of them raises any other exception, this
            one would raise it too, and is not tried.
    """

    name: str
    requirement: str
    kind: str
    run: Callable[[Any], str]
    encoders: bool = False
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """The result of one check on one backbone or task.

    Args:
        backbone: id of the backbone, or name of the task.
        check: name of the check.
        requirement: the requirement.
        status: `passed`, `failed`, `excepted`, `not applicable` or `not tried`.
        detail: values observed, or the reason.
        seconds: duration of the check.
        trace: traceback of an unexpected exception.
    """

    backbone: str
    check: str
    requirement: str
    status: str
    detail: str
    seconds: float
    trace: str | None = None

    @property
    def failed(self) -> bool:
        """Whether the check failed."""
        return self.status == FAILED

    def __str__(self) -> str:
        if self.failed:
            return f"{self.backbone} fails {self.check!r} ({self.requirement}): {self.detail}"
        return f"{self.backbone} {self.check}: {self.status}; {self.detail}"
