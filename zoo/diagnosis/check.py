"""The result of a check, and of all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from zoo.errors import BrokenPlugin, EnvironmentProblem, ExitCode, UsageError, ZooError, one_line
from zoo.options.arguments import name_arguments

OK, WARNING, ERROR = "ok", "warning", "error"
# A library that is missing breaks plugins too, so the causes come first.
ERRORS = (EnvironmentProblem, UsageError, BrokenPlugin)


@dataclass(frozen=True)
class Check:
    """What is known of one part of an installation.

    Args:
        name: of the part; of several faults of a part, each is a check.
        summary: what it is, or what is wrong, in one line.
        status: `ok`, `warning` (it works, but not as well as it could) or `error`.
        hint: what to do next; None where there is nothing to do.
        exit_code: of an error; 0 otherwise.
        facts: values by name, such as versions.
    """

    name: str
    summary: str
    status: str = OK
    hint: str | None = None
    exit_code: int = ExitCode.DONE
    facts: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def failed(cls, name: str, error: Exception) -> Check:
        """Return the check of a part that raised an error."""
        if isinstance(error, ZooError):
            name_arguments(error)
            return cls(name, error.message, ERROR, error.hint, error.exit_code)
        if isinstance(error, OSError):
            return cls(name, one_line(error), ERROR, None, ExitCode.ENVIRONMENT)
        hint = "please report it, with the traceback that --debug prints"
        return cls(name, one_line(error), ERROR, hint, ExitCode.BUG)

    def to_text(self) -> str:
        """Return it in one line, without its name and status."""
        return f"{self.summary}; {self.hint}" if self.hint else self.summary

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data for JSON."""
        return {**asdict(self), "exit_code": int(self.exit_code), "facts": dict(self.facts)}


@dataclass(frozen=True)
class Diagnosis:
    """The checks of an installation.

    Args:
        checks: in the order in which parts depend on one another.
    """

    checks: tuple[Check, ...]

    @property
    def errors(self) -> tuple[Check, ...]:
        """The checks that failed."""
        return tuple(check for check in self.checks if check.status == ERROR)

    @property
    def ok(self) -> bool:
        """Whether no check failed."""
        return not self.errors

    @property
    def exit_code(self) -> int:
        """That of the failures, where they differ in the order 6, 2, 5; 0 without one."""
        codes = {int(check.exit_code) for check in self.errors}
        ordered = [int(kind.exit_code) for kind in ERRORS]
        return next((code for code in [*ordered, *codes] if code in codes), int(ExitCode.DONE))

    def raise_failed(self) -> None:
        """Raise an error with the exit code, and the names of the checks that failed.

        Raises:
            ZooError: a check failed.
        """
        if self.errors:
            names = ", ".join(dict.fromkeys(check.name for check in self.errors))
            kinds = (kind for kind in ERRORS if kind.exit_code == self.exit_code)
            kind: type[ZooError] = next(kinds, ZooError)
            raise kind(f"checks failed: {names}", "the lines above state what to do")

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain data for JSON."""
        return {"ok": self.ok, "checks": [check.to_dict() for check in self.checks]}


def guarded(name: str, examine: Callable[[], Iterable[Check]]) -> Iterator[Check]:
    """Yield the checks of a part; what it raises becomes a failed check.

    Args:
        name: of the part.
        examine: returns its checks.
    """
    try:
        yield from examine()
    except Exception as error:  # a part that is broken must not hide the others
        yield Check.failed(name, error)
