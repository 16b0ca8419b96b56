"""Functions that read values of options which have a syntax of their own.

Their modules are imported when a value is read, because help does not need them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Set
from typing import Any

from zoo.errors import UsageError

# What has one is a file of weights; any other word without a slash may be a tag.
WEIGHTS_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")


def read_data(given: Any) -> Any:
    """Return the value of `data`.

    Raises:
        UsageError: it is empty text, which as a path would be the current folder.
    """
    if isinstance(given, str) and not given:
        raise UsageError("--data is empty", "give a path; . is the current folder")
    return given


def read_module_path(given: Any) -> str:
    """Return the value of `head_at`."""
    from zoo.options.head_spec import module_path

    return module_path(str(given))


def read_columns(given: Any) -> Any:
    """Return the value of `columns`."""
    from zoo.options.columns import read_columns as read

    return read(given)


def weights_text(given: Any) -> str:
    """Return a choice of weights as text; a path of Python is one, whatever tags there are."""
    text = str(given)
    path = isinstance(given, os.PathLike) and not text.endswith(WEIGHTS_SUFFIXES)
    return f"./{text}" if path and os.sep not in text else text


def class_names(given: Any) -> tuple[str, ...]:
    """Return names of classes in the order of the outputs.

    Args:
        given: an iterable of text that has an order, such as a list, an array or a generator.

    Raises:
        UsageError: it is none, or a name occurs twice.
    """
    from unicodedata import normalize

    hint = "give a unique name per class, in the order of the outputs"
    ordered = isinstance(given, Iterable) and not isinstance(given, (str, bytes, Mapping, Set))
    names = tuple(given) if ordered else (None,)
    if not all(isinstance(name, str) for name in names):
        raise UsageError("the classes are not a list of names", hint)
    if len({normalize("NFC", str(name)) for name in names}) < len(names):
        raise UsageError("two classes have the same name", hint)
    return tuple(map(str, names))


def read_duration(given: Any) -> float:
    """Return a time in seconds.

    Raises:
        UsageError: it is no time above 0.
    """
    import re

    parts = re.fullmatch(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s?)?", str(given).strip())
    hours, minutes, seconds = (
        float(part or 0) for part in (parts.groups() if parts else ("",) * 3)
    )
    if not (total := 3600 * hours + 60 * minutes + seconds):
        raise UsageError(f"--time-limit is {given!r}", "give a time such as 90s, 45m, 3h or 1h30m")
    return total


def read_class_weights(given: Any) -> Any:
    """Return the value of `class_weights`."""
    from zoo.options.class_weights import ClassWeights

    return ClassWeights.read(given)


def read_expression(given: Any) -> str:
    """Return a regular expression as text.

    Raises:
        UsageError: it is none.
    """
    import re

    try:
        return str(re.compile(str(given)).pattern)
    except re.error as error:
        message = f"--group-by {given}: {error}"
        raise UsageError(message, "give a regular expression such as '(p[0-9]+)_'") from error
