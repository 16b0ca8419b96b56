"""What a check can find: a promise kept, broken, excepted by its description, or not at stake."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

KEPT, BROKEN, EXCEPTED, ABSENT = "kept", "broken", "excepted", "not applicable"


class Broken(Exception):
    """A promise does not hold; the text says what was seen."""


class NotApplicable(Exception):
    """A promise has nothing to be about on this backbone; the text says why."""


@dataclass(frozen=True)
class Check:
    """One promise, and how it is tried.

    Args:
        name: for programs: `frozen_stays_frozen`.
        promise: a sentence for people that says what holds.
        kind: `description`, `structure` or `values`, what it needs of the network; or `task`.
        hold: tries it on a `Subject` or `TaskSubject`; returns what was seen, or raises `Broken`
            or `NotApplicable`.
        encoders: whether it holds for networks that zoo refuses to fine-tune too.
    """

    name: str
    promise: str
    kind: str
    hold: Callable[[Any], str]
    encoders: bool = False


@dataclass(frozen=True)
class Finding:
    """What came of one check on one backbone or task.

    Args:
        backbone: its id, or the task's name.
        check: the check's name.
        promise: what was to hold.
        status: `kept`, `broken`, `excepted` or `not applicable`.
        detail: the values seen, or the reason.
        seconds: that it took.
        trace: the traceback of an unforeseen error.
    """

    backbone: str
    check: str
    promise: str
    status: str
    detail: str
    seconds: float
    trace: str | None = None

    @property
    def broken(self) -> bool:
        """Whether the promise broke."""
        return self.status == BROKEN

    def __str__(self) -> str:
        if self.broken:
            return f"{self.backbone} breaks {self.check!r} ({self.promise}): {self.detail}"
        return f"{self.backbone} {self.check}: {self.status}; {self.detail}"
