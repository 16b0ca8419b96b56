"""What one option of a training is: its text, its default, its range, its description."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from zoo.errors import UsageError, did_you_mean


@dataclass(frozen=True)
class Range:
    """An interval of numbers.

    Args:
        kind: int or float; where a float is wanted, a whole number does too.
        least: the smallest value.
        most: the largest; may be infinite.
        open: neither bound itself is allowed.
    """

    kind: type[int] | type[float]
    least: float
    most: float
    open: bool = False

    def __contains__(self, value: Any) -> bool:
        # What is not a number compares as false, so that nan is in no range.
        if self.open:
            return bool(self.least < value < self.most)
        return bool(self.least <= value <= self.most)

    def __str__(self) -> str:
        if self.most == math.inf:
            return f"a number {'above' if self.open else 'from'} {self.least}"
        words = "between {} and {}" if self.open else "from {} to {}"
        return "a number " + words.format(self.least, self.most)

    def accepts(self, value: object) -> bool:
        """Whether a value is a number of this kind, and in range."""
        abstract = numbers.Integral if self.kind is int else numbers.Real
        return isinstance(value, abstract) and not isinstance(value, bool) and value in self


@dataclass(frozen=True)
class Option:
    """One option of a training, on the command line and in Python.

    Args:
        name: in Python; the command line has `--` before it, and hyphens.
        group: the section of the help that it is listed in.
        help: what it does, without a full stop.
        metavar: stands for its value in the help; None for a flag.
        details: what Python's documentation has beside the help.
        default: its value where it is not given; None where it is automatic.
        automatic: what an automatic default comes to, where that can be put in few words.
        range: of a number.
        choices: of a name.
        noun: what the choices are names of.
        value: of a value that is written as text: its type, which has `parse`.
        read_as: any other reading of a value that is given; raises UsageError.
        per_phase: several values may be given, one for each phase.
        config: keys of `[defaults]` in `registry.toml` that set its default, and have its range.
        bare: the text that the flag alone stands for.
        python_only: whether the command line leaves it out.
    """

    name: str
    group: str
    help: str
    metavar: str | None = None
    details: str = ""
    default: Any = None
    automatic: str = ""
    range: Range | None = None
    choices: tuple[str, ...] = ()
    noun: str = ""
    value: Any = None
    read_as: Callable[[Any], Any] | None = None
    per_phase: bool = False
    config: tuple[str, ...] = ()
    bare: str | None = None
    python_only: bool = False

    @property
    def flag(self) -> str:
        """How the command line spells it."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def switch(self) -> bool:
        """Whether it takes no value on the command line."""
        return self.metavar is None and not self.python_only

    @property
    def description(self) -> str:
        """The help with its default, as one sentence."""
        default = f"; by default {self.automatic}" if self.automatic else ""
        sentence = f"{self.help}{default}"
        return sentence if sentence.endswith("...") else f"{sentence}."

    def read(self, given: Any) -> Any:
        """Return the value of what was given: text is parsed, numbers and names are checked.

        Args:
            given: text, or a value as Python has it; None for the default.

        Raises:
            UsageError: it is no value of this option; says what is.
        """
        if given is None:
            return self.default
        if self.range is not None:
            return self._several(given) if self.per_phase else self._number(given)
        if self.choices:
            return self._choice(given)
        if self.value is not None:
            return self._value(given)
        if self.switch and not isinstance(given, bool):
            raise UsageError(f"{self.flag} is {given!r}", "give True or False")
        return given if self.read_as is None else self.read_as(given)

    def _number(self, given: Any) -> int | float:
        assert self.range is not None
        if not self.range.accepts(given):
            whole = self.range.kind is int and isinstance(given, float) and given in self.range
            hint = "give a whole number" if whole else f"give {self.range}"
            raise UsageError(f"{self.flag} is {given!r}", hint)
        return self.range.kind(given)

    def _several(self, given: Any) -> tuple[int | float, ...]:
        assert self.range is not None
        values = tuple(given) if isinstance(given, (tuple, list)) else (given,)
        if not values:
            raise UsageError(f"{self.flag} is empty", "give one value, or one for each phase")
        for value in values:
            if not self.range.accepts(value):
                raise UsageError(f"{self.flag} has {value!r}", "give positive numbers")
        return tuple(map(self.range.kind, values))

    def _choice(self, given: Any) -> str:
        if given not in self.choices:
            hint = f"one of {', '.join(self.choices)}"
            if isinstance(given, str):
                hint = did_you_mean(given, self.choices, hint) or hint
            unknown = f"{self.flag} {given!r} is unknown"
            raise UsageError(f"no {self.noun} is named {given!r}" if self.noun else unknown, hint)
        return str(given)

    def _value(self, given: Any) -> Any:
        if isinstance(given, self.value):
            return given
        if not isinstance(given, str):
            hint = f"give text, or a zoo.options.{self.value.__name__}"
            raise UsageError(f"{self.flag} is {given!r}", hint)
        return self.value.parse(given)


def raise_together(faults: Sequence[UsageError]) -> None:
    """Raise what is wrong with options as one error; nothing where nothing is.

    Raises:
        UsageError: the fault, or all of them in one line.
    """
    if len(faults) == 1:
        raise faults[0]
    if faults:
        lines = (
            f"{fault.message} ({fault.hint})" if fault.hint else fault.message for fault in faults
        )
        raise UsageError(f"{len(faults)} options are wrong: {'; '.join(lines)}")
