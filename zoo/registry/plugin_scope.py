"""The plugins that a process loads: built-in and installed ones, or those that a test supplies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any, NamedTuple

from zoo.registry.discovery import Plugin, Switches, discover

Key = tuple[Switches, Path | None, tuple[Path, ...], bool]


class Selection(NamedTuple):
    """The plugins and the registry file that a process selects by `zoo.configure`.

    Args:
        without: plugins to exclude.
        file: a registry file; None without one.
        plugins: python files of plugins.
    """

    without: tuple[str, ...] = ()
    file: Path | None = None
    plugins: tuple[Path, ...] = ()


class Scope:
    """A set of available plugins, and the registries that `load_registry` created from it.

    Args:
        plugins: returns the available plugins, without those of `--plugin`.

    Attributes:
        selection: of the process, in addition to the arguments of `load_registry`.
        registered: plugins of `zoo.register`, by name.
        registries: by their arguments; cleared when one of the others changes.
        loading: lock of `load_registry`, so that two threads load no plugin twice; a plugin may
            load a registry itself.
    """

    def __init__(self, plugins: Callable[[], Sequence[Plugin]]) -> None:
        self.plugins = plugins
        self.selection = Selection()
        self.registered: dict[str, Plugin] = {}
        self.registries: dict[Key, Any] = {}
        self.loading = RLock()


_current = Scope(discover)


def current() -> Scope:
    """Return the active scope."""
    return _current


@contextmanager
def in_force(scope: Scope) -> Iterator[Scope]:
    """Activate a scope for the whole process inside the block."""
    global _current
    previous, _current = _current, scope
    try:
        yield scope
    finally:
        _current = previous
