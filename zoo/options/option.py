"""One option of a training: its name, default, range and description."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple

from zoo.errors import UsageError, did_you_mean


class Range(NamedTuple):
    """An interval of numbers.

    Args:
        kind: int or float; integers are accepted as floats.
        least: the smallest value.
        most: the largest value; may be infinite.
        open: exclude both bounds.
        below: exclude the upper bound only.
    """

    kind: type[int] | type[float]
    least: float
    most: float
    open: bool = False
    below: bool = False

    def __contains__(self, value: Any) -> bool:
        # Comparisons with nan are false, so nan is in no range.
        if self.open:
            return bool(self.least < value < self.most)
        if self.below:
            return bool(self.least <= value < self.most)
        return bool(self.least <= value <= self.most)

    def __str__(self) -> str:
        if self.most == math.inf:
            return f"a number {'above' if self.open else 'from'} {self.least}"
        bounds = "between {} and {}" if self.open else "from {} to {}"
        if self.below:
            bounds = "from {} to below {}"
        return "a number " + bounds.format(self.least, self.most)

    def accepts(self, value: object) -> bool:
        """Whether a value is a number of this kind and in range."""
        import numbers  # here: commands that check no number do not need it

        abstract = numbers.Integral if self.kind is int else numbers.Real
        return isinstance(value, abstract) and not isinstance(value, bool) and value in self


class Option(NamedTuple):
    """One option of a training, on the command line and in Python.

    Args:
        name: in Python; on the command line prefixed by `--` and with hyphens.
        help: description without a full stop.
        metavar: placeholder of its value in the help; None for a flag.
        details: addition to the description in Python's documentation.
        default: value if not given; None if automatic.
        automatic: short description of an automatic default.
        range: of a number.
        choices: of a name.
        noun: what the choices name, for messages.
        value: type of a value written as text, with a `parse` method, as
            `"module:Class"`, so that help does not import it.
        read_as: any other conversion of a given value; raises UsageError.
        per_phase: accepts several values, one for each phase.
        config: keys of `[defaults]` in `registry.toml` that set its default, with the same range.
        bare: the text for the flag without a value.
        path: a path, as text or a `PathLike`.
        python_only: not on the command line.
        group: section of the help.
    """

    name: str
    help: str
    metavar: str | None = None
    details: str = ""
    default: Any = None
    automatic: str = ""
    range: Range | None = None
    choices: tuple[str, ...] = ()
    noun: str = ""
    value: str = ""
    read_as: Callable[[Any], Any] | None = None
    per_phase: bool = False
    config: tuple[str, ...] = ()
    bare: str | None = None
    path: bool = False
    python_only: bool = False
    group: str = ""

    @property
    def flag(self) -> str:
        """The name on the command line."""
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

    @property
    def value_type(self) -> Any:
        """The class of a value written as text."""
        module, _, name = self.value.partition(":")
        return getattr(import_module(module), name)

    def read(self, given: Any) -> Any:
        """Parse and validate a value.

        Args:
            given: text or a Python value; None for the default.

        Raises:
            UsageError: it is invalid; states the valid values.
        """
        if given is None:
            return self.default
        if self.range is not None:
            return self._several(given) if self.per_phase else self._number(given)
        if self.choices:
            return self._choice(given)
        if self.value:
            return self._value(given)
        if self.path:
            return self._path(given)
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

    def _path(self, given: Any) -> str:
        if not isinstance(given, (str, os.PathLike)) or not os.fspath(given):
            raise UsageError(f"{self.flag} is {given!r}", "give a path")
        return os.fspath(given)

    def _choice(self, given: Any) -> str:
        if given not in self.choices:
            hint = f"one of {', '.join(self.choices)}"
            if isinstance(given, str):
                hint = did_you_mean(given, self.choices, hint) or hint
            unknown = f"{self.flag} {given!r} is unknown"
            raise UsageError(f"no {self.noun} is named {given!r}" if self.noun else unknown, hint)
        return str(given)

    def _value(self, given: Any) -> Any:
        kind = self.value_type
        if isinstance(given, kind):
            return given
        if not isinstance(given, str):
            hint = f"give text, or a zoo.options.{kind.__name__}"
            raise UsageError(f"{self.flag} is {given!r}", hint)
        return kind.parse(given)


def raise_together(faults: Sequence[UsageError]) -> None:
    """Raise the errors of several options as one, if there are any.

    Raises:
        UsageError: the only error, or all of them in one line.
    """
    if len(faults) == 1:
        raise faults[0]
    if faults:
        lines = (
            f"{fault.message} ({fault.hint})" if fault.hint else fault.message for fault in faults
        )
        raise UsageError(f"{len(faults)} options are wrong: {'; '.join(lines)}")
