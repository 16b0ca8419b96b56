"""What a process loads from: what is built in and installed, or what a test says there is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zoo.registry.plugins import Plugin, Switches, discover

Key = tuple[Switches, Path | None, tuple[Path, ...]]


class Scope:
    """What there is to load, and the registries that `load_registry` made of it.

    Args:
        plugins: called to know which plugins there are, beside those that `--plugin` names.
    """

    def __init__(self, plugins: Callable[[], Sequence[Plugin]]) -> None:
        self.plugins = plugins
        self.registries: dict[Key, Any] = {}


_current = Scope(discover)


def current() -> Scope:
    """Return the scope in force."""
    return _current


@contextmanager
def in_force(scope: Scope) -> Iterator[Scope]:
    """Have all of this process load from another scope, until the block ends."""
    global _current
    kept, _current = _current, scope
    try:
        yield scope
    finally:
        _current = kept
