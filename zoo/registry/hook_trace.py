"""`ZOO_TRACE_HOOKS=1`: trace each call of a hook implementation as one line on stderr."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import pluggy

from zoo.errors import one_line
from zoo.registry.hook_manager import HookManager, Options, Outcome
from zoo.terminal import print_notice

MAX_LENGTH = 60
MAX_ITEMS = 4


def _short(value: Any) -> str:
    """Return a value as a short text."""
    try:
        if isinstance(value, float):
            return f"{value:.4g}"
        if isinstance(value, Mapping):
            value = dict(value)
        name = getattr(value, "name", None)
        text = f"{type(value).__name__} {name}" if isinstance(name, str) else repr(value)
    except Exception as error:  # `__repr__` or `name` of a plugin's object may raise
        text = f"<{type(value).__name__}, which cannot be shown: {type(error).__name__}>"
    return text if len(text) <= MAX_LENGTH else f"{text[: MAX_LENGTH - 3]}..."


def _formatted(value: Any) -> str:
    """Return an argument or result of a hook as one line."""
    if isinstance(value, list) and value and all(isinstance(items, tuple) for items in value):
        value = tuple(chain.from_iterable(value))  # the records of several plugins
    if isinstance(value, tuple):
        first = ", ".join(_short(item) for item in value[:MAX_ITEMS])
        more = f", and {len(value) - MAX_ITEMS} more" if len(value) > MAX_ITEMS else ""
        return f"{len(value)}: {first}{more}" if value else "nothing"
    names = getattr(value, "__dataclass_fields__", None)
    if names is None:
        return _short(value)
    shown = [name for name, field in names.items() if field.repr]
    fields = ", ".join(f"{name}={_short(getattr(value, name))}" for name in shown)
    return f"{type(value).__name__}({fields})"


def trace_calls(manager: HookManager) -> None:
    """Print, after each call of a hook, one line for each implementation."""

    def before(
        hook: str, implementations: Sequence[pluggy.HookImpl], arguments: Mapping[str, Any]
    ) -> None:
        """Do nothing; pluggy requires both callbacks."""

    def after(
        result: pluggy.Result[Any],
        hook: str,
        implementations: Sequence[pluggy.HookImpl],
        arguments: Mapping[str, Any],
    ) -> None:
        for outcome in manager.outcomes:
            print_outcome(outcome, arguments)

    manager.add_hookcall_monitoring(before, after)


def print_outcome(outcome: Outcome, arguments: Mapping[str, Any]) -> None:
    """Print plugin, hook, arguments, result or error, and time of an implementation.

    Args:
        outcome: of the implementation.
        arguments: of the hook.
    """
    result = f"-> {_formatted(outcome.result)}"
    if outcome.error:
        result = f"raised {one_line(outcome.error)}"
    values = ", ".join(
        map(_formatted, [item for item in arguments.values() if not isinstance(item, Options)])
    )
    milliseconds = f"{1000 * outcome.seconds:.1f} ms"
    print_notice(f"zoo: hook {outcome.plugin}: {outcome.hook}({values}) {result}, {milliseconds}")
