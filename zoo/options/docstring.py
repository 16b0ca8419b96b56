"""The options of a training in the docstring of a function."""

from __future__ import annotations

import inspect
from textwrap import fill
from typing import TypeVar

from zoo.options.table import OPTIONS

Function = TypeVar("Function")


def documents_options(function: Function) -> Function:
    """Replace `{options}` in a docstring by one paragraph per option."""
    paragraphs = (
        fill(
            f"{option.name}: {option.description} {option.details}",
            width=96,
            initial_indent=" " * 8,
            subsequent_indent=" " * 12,
        )
        for option in OPTIONS
    )
    if function.__doc__:  # python -OO drops docstrings
        text = inspect.cleandoc(function.__doc__)
        function.__doc__ = text.replace("{options}", "\n".join(paragraphs).lstrip())
    return function
