"""The errors that zoo raises on purpose, each class with its exit code.

A `ZooError` has one sentence on what is wrong and where, and a hint on what to do next. Any other
exception that reaches the command line is a bug.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from enum import IntEnum

# errno values that mean an environment problem rather than a bug.
ENVIRONMENT_ERRNOS = {
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EIO,
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EMFILE,
    errno.ENFILE,
    errno.ENOMEM,
}

# Whether the command line runs: errors name its flags, and the arguments of Python otherwise.
command_line = False


class ExitCode(IntEnum):
    """Exit codes of the process; public and stable."""

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


class Interruption(BaseException):
    """Raised where a signal, or the end of a time limit, interrupts a command."""


# What ends a command from outside. Anything else that a plugin raises is a failure of the plugin.
INTERRUPTS = (KeyboardInterrupt, Interruption)


class ZooError(Exception):
    """An error that the user can fix.

    Args:
        message: what is wrong and where, in one line.
        hint: what to do next, in one line.
    """

    exit_code = ExitCode.BUG

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        text = f"{self.message}; {self.hint}" if self.hint else self.message
        return text.replace("\n", r"\n")  # of the name of a file, or of a class


class UsageError(ZooError):
    """An invalid option, configuration value or name."""

    exit_code = ExitCode.USAGE


class RegistryError(UsageError):
    """An invalid `registry.toml`; names file, line and key.

    Attributes:
        parts: of several errors, each; empty for a single one.
    """

    parts: tuple[RegistryError, ...] = ()


class UnknownBackbone(UsageError):
    """No backbone has the requested name.

    Args:
        query: the requested name.
        suggestions: the nearest existing names, best first.
        note: a possible cause, such as a plugin that failed to load.
        hint: what to do next; by default, the nearest names.
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
        default = f"did you mean {near}?" if near else "`zoo list` shows all names"
        super().__init__(message, hint or default)
        self.query = query
        self.note = note
        self.suggestions = tuple(suggestions)


class DataError(ZooError):
    """Invalid images, targets or splits."""

    exit_code = ExitCode.DATA


class WeightsError(ZooError):
    """Weights, a model file or a checkpoint that is refused or unreachable."""

    exit_code = ExitCode.WEIGHTS


class BrokenPlugin(ZooError):
    """The requested plugin does not work."""

    exit_code = ExitCode.BROKEN


class BrokenBackbone(ZooError):
    """The requested backbone does not build, or not as its adapter describes."""

    exit_code = ExitCode.BROKEN


class EnvironmentProblem(ZooError):
    """Missing disk space, memory, device or permission."""

    exit_code = ExitCode.ENVIRONMENT


class Busy(ZooError):
    """Another process uses a required resource; try later."""

    exit_code = ExitCode.BUSY


class Diverged(ZooError):
    """The training loss is not finite."""

    exit_code = ExitCode.DIVERGED


class TimeLimit(ZooError):
    """The time that was given to a training is over; it can be resumed."""

    exit_code = ExitCode.TERMINATED


def nearest(word: str, known: Sequence[str], count: int = 3) -> tuple[str, ...]:
    """Return the known words that are most similar to `word`, best first; empty without any."""
    from difflib import get_close_matches

    by_lower = {name.lower(): name for name in known}
    matches = get_close_matches(word.lower(), list(by_lower), n=count, cutoff=0.6)
    return tuple(by_lower[name] for name in matches)


def did_you_mean(word: str, known: Sequence[str], fallback: str | None = None) -> str | None:
    """Return a hint that names the nearest known words, or the fallback."""
    near = nearest(word, known)
    return f"did you mean {', '.join(near)}?" if near else fallback


def counted(number: int, one: str, many: str | None = None) -> str:
    """Format a number with its noun: `1 class`, `1,200 classes`.

    Args:
        number: of things.
        one: the noun, or noun and verb, in the singular.
        many: in the plural; by default by the rules of spelling.
    """
    if number == 1:
        return f"1 {one}"
    if many is None and re.search("[^aeiou]y$", one):
        many = f"{one[:-1]}ies"
    return f"{number:,} {many or one + ('es' if re.search('(s|x|tch|sh)$', one) else 's')}"


def listed(names: Sequence[str], most: int = 3, separator: str = ", ") -> str:
    """Join the first names for a message, and count the others."""
    rest = len(names) - most
    return separator.join(names[:most]) + (f" and {rest:,} more" if rest > 0 else "")


def join_lines(text: str) -> str:
    """Return a text of several lines as one; spaces within a line, as of paths, are kept."""
    return " ".join(line for each in text.splitlines() if (line := each.strip()))


def unknown_format(path: object, version: object, expected: int) -> WeightsError:
    """Return the error for a file or folder that another version of zoo wrote.

    Args:
        path: of it.
        version: of its format, as written.
        expected: version that this zoo reads.
    """
    message = f"{path} has format {version!r:.40}; this zoo reads format {expected}"
    return WeightsError(message, "read it with the version of zoo that wrote it")


# Characters of a message: torch lists every tensor that does not fit, several lines for each.
LONGEST = 600


def one_line(error: BaseException) -> str:
    """Return an error's class name and message as one line, a very long one shortened."""
    try:
        message = join_lines(str(error))
        message = message if len(message) <= LONGEST else f"{message[: LONGEST - 3]}..."
    except Exception:  # `__str__` of a plugin's error may raise
        message = ""
    return f"{type(error).__name__}: {message}" if message else type(error).__name__
