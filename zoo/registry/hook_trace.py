"""`ZOO_TRACE_HOOKS=1`: each call of a hook as one line on stderr, for those who write plugins."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TypeVar

from zoo.errors import one_line

Answer = TypeVar("Answer")
LONG = 60
MANY = 4


def _short(value: Any) -> str:
    """Return a value in a few words, whatever it is."""
    try:
        if isinstance(value, float):
            return f"{value:.4g}"
        if isinstance(value, Mapping):
            value = dict(value)
        name = getattr(value, "name", None)
        text = f"{type(value).__name__} {name}" if isinstance(name, str) else repr(value)
    except Exception as error:  # a plugin's own object can do anything when it is looked at
        text = f"<{type(value).__name__}, which cannot be shown: {type(error).__name__}>"
    return text if len(text) <= LONG else f"{text[: LONG - 3]}..."


def _shown(value: Any) -> str:
    """Return what a hook was given or gave, in a line."""
    if isinstance(value, tuple):
        some = ", ".join(_short(item) for item in value[:MANY])
        more = f", and {len(value) - MANY} more" if len(value) > MANY else ""
        return f"{len(value)}: {some}{more}" if value else "nothing"
    fields = getattr(value, "__dataclass_fields__", None)
    if fields is None:
        return _short(value)
    inside = ", ".join(f"{name}={_short(getattr(value, name))}" for name in fields)
    return f"{type(value).__name__}({inside})"


def traced(
    hook: str, plugin: str, call: Callable[..., Answer], arguments: tuple[Any, ...]
) -> Answer:
    """Call a hook, and say which, whose, on what, to what end, and how long it took.

    Args:
        hook: its name.
        plugin: name of the plugin that implements it.
        call: the implementation.
        arguments: what it is called with.

    Returns:
        What it returned.
    """
    began = time.perf_counter()
    end = "raised "
    try:
        answer = call(*arguments)
        end = f"-> {_shown(answer)}"
        return answer
    except BaseException as error:
        end += one_line(error)
        raise
    finally:
        took = 1000 * (time.perf_counter() - began)
        given = ", ".join(_shown(argument) for argument in arguments)
        _say(f"zoo: hook {plugin}: {hook}({given}) {end}, {took:.1f} ms")


def _say(text: str) -> None:
    line = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    if sys.stderr is not None:
        # A reader that has gone must not cost a training.
        with suppress(OSError):
            print(line, file=sys.stderr, flush=True)
