"""Errors for people, each kind with its exit code.

Every error that zoo raises on purpose is a `ZooError`: one sentence that says what was wrong and
where, and a hint that says what to do next. Anything else that reaches the command line is a bug.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum


class ExitCode(IntEnum):
    """What the process exits with; public, and stable."""

    DONE = 0
    BUG = 1
    USAGE = 2
    DATA = 3
    WEIGHTS = 4
    BROKEN = 5
    ENVIRONMENT = 6
    BUSY = 7
    DIVERGED = 8
    INTERRUPTED = 130
    TERMINATED = 143


class ZooError(Exception):
    """Something that a person can put right.

    Args:
        message: what was wrong, and where; one line.
        hint: what to do next; one line.
    """

    exit_code = ExitCode.BUG

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.message}; {self.hint}" if self.hint else self.message
        return " ".join(text.split())


class UsageError(ZooError):
    """An option, a configuration value or a name that zoo cannot work with."""

    exit_code = ExitCode.USAGE


class RegistryError(UsageError):
    """A `registry.toml` that cannot be used; says file, line and key."""


class UnknownBackbone(UsageError):
    """No backbone has the name that was asked for.

    Args:
        query: the name that was asked for.
        suggestions: the nearest names that do exist, best first.
        note: more that is known about why, such as a plugin that failed to load.
        hint: what to do next, where that is not to choose among the nearest names.
    """

    def __init__(
        self,
        query: str,
        suggestions: Sequence[str] = (),
        note: str | None = None,
        hint: str | None = None,
    ) -> None:
        message = f"no backbone is named {query!r}"
        if note:
            message += f" ({note})"
        near = ", ".join(suggestions)
        usual = f"did you mean {near}?" if near else "`zoo list` shows all names"
        super().__init__(message, hint or usual)
        self.query = query
        self.note = note
        self.suggestions = tuple(suggestions)


class DataError(ZooError):
    """Images, labels or splits that cannot be used as they are."""

    exit_code = ExitCode.DATA


class WeightsError(ZooError):
    """Weights, a model file or a checkpoint that is refused or cannot be reached."""

    exit_code = ExitCode.WEIGHTS


class BrokenPlugin(ZooError):
    """The plugin that was asked for does not work."""

    exit_code = ExitCode.BROKEN


class BrokenBackbone(ZooError):
    """The backbone that was asked for does not build, or is not what its adapter says."""

    exit_code = ExitCode.BROKEN


class EnvironmentProblem(ZooError):
    """The disk, the memory, a device or a permission stands in the way."""

    exit_code = ExitCode.ENVIRONMENT


class Busy(ZooError):
    """Another process holds what this one needs; try later."""

    exit_code = ExitCode.BUSY


class Diverged(ZooError):
    """The training loss stopped being a number."""

    exit_code = ExitCode.DIVERGED


def nearest(word: str, known: Sequence[str], count: int = 3) -> tuple[str, ...]:
    """Return the known words most like `word`, best first; empty where none is near."""
    from difflib import get_close_matches

    by_folded = {name.lower(): name for name in known}
    found = get_close_matches(word.lower(), list(by_folded), n=count, cutoff=0.6)
    return tuple(by_folded[name] for name in found)


def did_you_mean(word: str, known: Sequence[str], fallback: str | None = None) -> str | None:
    """Return a hint that names the nearest known words, or the fallback."""
    near = nearest(word, known)
    return f"did you mean {', '.join(near)}?" if near else fallback


def one_line(error: BaseException) -> str:
    """Return an error as one line: its kind and what it said."""
    try:
        said = " ".join(str(error).split())
    except Exception:  # an error of a plugin's may fail at this too
        said = ""
    return f"{type(error).__name__}: {said}" if said else type(error).__name__
