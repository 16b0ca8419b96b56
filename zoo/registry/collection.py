"""What collecting hooks yield: typed records, each with the plugin that owns it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from zoo.errors import BrokenPlugin
from zoo.registry.hook_manager import Results
from zoo.spec import Backbone, Family, Task

Record = Backbone | Family | Task


class Collection(Results):
    """The records that a collecting hook yields.

    Each is given its plugin's name as `source`. A wrapper sees one list of records for each plugin.
    Of what it returns, a record that has a source, changed or not, stays that plugin's; one that
    has none is the wrapper's own.

    Args:
        kinds: types of the records.
        origins: by name of each plugin that may own one, what it is, in words.
    """

    def __init__(self, kinds: tuple[type[Record], ...], origins: Mapping[str, str]) -> None:
        self.kinds = kinds
        self.origins = origins

    def accept(self, plugin: str, result: Any) -> tuple[Record, ...]:
        """Return what a plugin yields as its own.

        Raises:
            BrokenPlugin: it is junk, or two records have one name.
        """
        found = [self._owned(plugin, item, plugin) for item in self._each(plugin, result)]
        _check_names(plugin, found)
        return tuple(found)

    def accept_wrapped(self, plugin: str, results: Any) -> list[tuple[Record, ...]]:
        """Return what a wrapper of that plugin makes of the records of all plugins.

        Raises:
            BrokenPlugin: it is junk, or two records of one plugin have one name.
        """
        lists = [
            tuple(
                self._owned(plugin, item, getattr(item, "source", "") or plugin)
                for item in self._each(plugin, items)
            )
            for items in self._each(plugin, results)
        ]
        _check_names(plugin, [item for items in lists for item in items])
        return lists

    def copy(self, results: Any) -> list[list[Record]]:
        """Return the records as lists that may be changed."""
        return [list(items) for items in results]

    def _each(self, plugin: str, result: Any) -> Iterable[Any]:
        if not isinstance(result, Iterable) or isinstance(result, (str, bytes)):
            raise BrokenPlugin(f"plugin {plugin!r} returned {result!r:.80}, not an iterable")
        return result

    def _owned(self, plugin: str, item: Any, owner: str) -> Record:
        if not isinstance(item, self.kinds):
            what = f"{type(item).__name__} {item!r}"[:80]
            kinds = " or ".join(kind.__name__ for kind in self.kinds)
            raise BrokenPlugin(f"plugin {plugin!r} registered {what}, not a {kinds}")
        if owner not in self.origins:
            named = ", ".join(self.origins)
            message = f"plugin {plugin!r} registered {item!r:.80} for {owner!r}, which is no plugin"
            raise BrokenPlugin(message, f"one of {named}")
        return item.with_source(owner, self.origins[owner])


def _check_names(plugin: str, found: Iterable[Record]) -> None:
    names: set[tuple[str, str]] = set()
    for item in found:
        if isinstance(item, Family):
            continue
        if (item.source, item.name) in names:
            raise BrokenPlugin(f"plugin {plugin!r} registers {item.name!r} twice")
        names.add((item.source, item.name))


def by_owner(results: Iterable[Iterable[Record]]) -> dict[str, list[Any]]:
    """Return the records of each plugin, in the order in which it yielded them."""
    owned: dict[str, list[Any]] = {}
    for items in results:
        for item in items:
            owned.setdefault(item.source, []).append(item)
    return owned
