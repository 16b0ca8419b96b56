"""Errors that name the arguments of Python in place of the flags of the command line."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import Any, TypeVar, cast

from zoo import errors
from zoo.errors import UsageError, ZooError
from zoo.options.option import Option, Range, raise_together
from zoo.options.table import COUNT, OPTIONS

Function = TypeVar("Function", bound=Callable[..., Any])

FURTHER = ("explain", "limit", "max_params", "min_probability", "part", "top")
# Flags that are no options of a training, by the arguments that they are in Python.
ARGUMENTS = {
    "--no-plugin": "without",
    "--plugin": "plugins",
    "--registry": "registry",
    **{f"--{name.replace('_', '-')}": name for name in FURTHER},
    **{option.flag: option.name for option in OPTIONS},
}
# Of arguments that are no options of a training; of others it is that of a count.
RANGES = {"min_probability": Range(float, 0, 1)}
# Remedies that are arguments of another function than the one that raises.
CALLS = {
    "--debug shows where": "the traceback shows where",
    "check --no-plugin": "check zoo.configure(without=...)",
    "--plugin FILE": "zoo.configure(plugins=[FILE])",
    "--registry FILE": "zoo.configure(registry=FILE)",
}
CHOICES = {option.flag: (*option.choices, "auto", "none", "head", "all") for option in OPTIONS}
BY_NAME = {option.name: option for option in OPTIONS}
# A command in backquotes stays; a value may follow a flag.
MENTION = re.compile(r"`[^`]*`|(--[a-z][a-z-]*)(?:([ =])([^\s,;:()]+))?")


def _argument(match: re.Match[str]) -> str:
    flag, separator, word = match.groups()
    name = ARGUMENTS.get(flag)
    if name is None:
        return match[0]
    if word is None:
        return name
    if word in CHOICES.get(flag, ()) or "/" in word:
        return f"{name}={word!r}"
    if re.fullmatch(r"[\d.e-]+|[A-Z]+", word):
        return f"{name}={word}"
    return f"{name}{separator}{word}"


def in_python(text: str) -> str:
    """Replace the flags in a message by the arguments of Python: `--lr 0.1` by `lr=0.1`."""
    for flag, call in CALLS.items():
        text = text.replace(flag, call)
    return MENTION.sub(_argument, text)


def name_arguments(error: BaseException) -> None:
    """Make message, hint and notes of an error name arguments, unless the command line runs."""
    if not isinstance(error, ZooError) or errors.command_line:
        return
    error.message = in_python(error.message)
    error.hint = error.hint and in_python(error.hint)
    error.args = (error.message, error.hint)
    if notes := getattr(error, "__notes__", None):
        notes[:] = map(in_python, notes)


def names_arguments(function: Function) -> Function:
    """Make the errors that a function raises name arguments, as `name_arguments` does."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except ZooError as error:
            name_arguments(error)
            raise

    return cast(Function, call)


def check_arguments(*required: str, **given: Any) -> None:
    """Check arguments that are options of a training too, by its table, or counts.

    Args:
        required: names of those that cannot be None, which is none otherwise.
        given: values by name.

    Raises:
        UsageError: names all that are invalid.
    """
    faults = []
    for name, value in given.items():
        option = BY_NAME.get(name) or Option(name, "", range=RANGES.get(name, COUNT))
        if value is None and name in required:
            faults.append(UsageError(f"{name} is None", f"give {option.range or 'a path'}"))
        try:
            option.read(value)
        except UsageError as error:
            faults.append(error)
    raise_together(faults)
