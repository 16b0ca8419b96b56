"""`ZOO_TRACE_HOOKS=1`: what each plugin does in a hook as one line on stderr, for their authors."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain
from typing import Any

import pluggy

from zoo.errors import one_line
from zoo.registry.hook_manager import HookManager, Outcome

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
    if isinstance(value, list) and value and all(isinstance(items, tuple) for items in value):
        value = tuple(chain.from_iterable(value))  # the records of several plugins
    if isinstance(value, tuple):
        some = ", ".join(_short(item) for item in value[:MANY])
        more = f", and {len(value) - MANY} more" if len(value) > MANY else ""
        return f"{len(value)}: {some}{more}" if value else "nothing"
    fields = getattr(value, "__dataclass_fields__", None)
    if fields is None:
        return _short(value)
    inside = ", ".join(f"{name}={_short(getattr(value, name))}" for name in fields)
    return f"{type(value).__name__}({inside})"


def trace_calls(manager: HookManager) -> None:
    """Print, after each call of a hook, a line for each implementation: its plugin and outcome."""

    def before(
        hook: str, implementations: Sequence[pluggy.HookImpl], arguments: Mapping[str, Any]
    ) -> None:
        """Nothing is known yet."""

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
    """Print whose implementation of which hook did what on what, and how long it took.

    Args:
        outcome: of one implementation.
        arguments: of the hook.
    """
    ended = f"raised {one_line(outcome.error)}" if outcome.error else f"-> {_shown(outcome.result)}"
    given = ", ".join(map(_shown, arguments.values()))
    took = f"{1000 * outcome.seconds:.1f} ms"
    _print_line(f"zoo: hook {outcome.plugin}: {outcome.hook}({given}) {ended}, {took}")


def _print_line(text: str) -> None:
    line = "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)
    if sys.stderr is not None:
        # A reader that has gone must not cost a training.
        with suppress(OSError):
            print(line, file=sys.stderr, flush=True)
