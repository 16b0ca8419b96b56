"""The results of collecting hooks: typed records, each owned by a plugin."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from zoo.errors import BrokenPlugin
from zoo.registry.hook_manager import Results
from zoo.spec import (
    AddedWeights,
    Backbone,
    ExportFormat,
    Family,
    PluginOption,
    Task,
    WeightFile,
)

Record = Backbone | Family | Task | WeightFile | AddedWeights | PluginOption | ExportFormat
# Whose names are unique among all plugins, and how messages name them.
UNIQUE = {Task: "task", AddedWeights: "weights", ExportFormat: "format"}


class Collection(Results):
    """The records that a collecting hook yields.

    The `source` of each is set to its plugin's name. A wrapper receives one list of records per
    plugin; a record that it returns belongs to its `source`, or without one to the wrapper's
    plugin.

    Args:
        kinds: types of the records.
        origins: description of each plugin that may own records, by name.
    """

    def __init__(self, kinds: tuple[type[Record], ...], origins: Mapping[str, str]) -> None:
        self.kinds = kinds
        self.origins = origins

    def accept(self, plugin: str, result: Any) -> tuple[Record, ...]:
        """Return the records that a plugin yields, owned by it.

        Raises:
            BrokenPlugin: the result is invalid, or two records have one name.
        """
        records = [self._owned(plugin, item, plugin) for item in self._iterable(plugin, result)]
        _check_names(plugin, records)
        return tuple(records)

    def accept_wrapped(self, plugin: str, results: Any) -> list[tuple[Record, ...]]:
        """Return the records of all plugins that a wrapper of that plugin returns.

        Raises:
            BrokenPlugin: the result is invalid, or two records of one plugin have one name.
        """
        lists = [
            tuple(
                self._owned(plugin, item, getattr(item, "source", "") or plugin)
                for item in self._iterable(plugin, items)
            )
            for items in self._iterable(plugin, results)
        ]
        _check_names(plugin, [item for items in lists for item in items])
        return lists

    def copy(self, results: Any) -> list[list[Record]]:
        """Return the records as mutable lists."""
        return [list(items) for items in results]

    def _iterable(self, plugin: str, result: Any) -> Iterable[Any]:
        if not isinstance(result, Iterable) or isinstance(result, (str, bytes)):
            raise BrokenPlugin(f"plugin {plugin!r} returned {result!r:.80}, not an iterable")
        return result

    def _owned(self, plugin: str, item: Any, owner: str) -> Record:
        if not isinstance(item, self.kinds):
            wrong = f"{type(item).__name__} {item!r}"[:80]
            kinds = " or ".join(kind.__name__ for kind in self.kinds)
            raise BrokenPlugin(f"plugin {plugin!r} registered {wrong}, not a {kinds}")
        if owner not in self.origins:
            message = f"plugin {plugin!r} registered {item!r:.80} for {owner!r}, which is no plugin"
            raise BrokenPlugin(message, f"one of {', '.join(self.origins)}")
        return item.with_source(owner, self.origins[owner])


def _check_names(plugin: str, records: Iterable[Record]) -> None:
    names: set[tuple[str, str]] = set()
    for record in records:
        if isinstance(record, (Family, WeightFile)):
            continue
        aliases = record.aliases if isinstance(record, Backbone) else ()
        for name in (record.name, *aliases):
            if (record.source, name) in names:
                raise BrokenPlugin(f"plugin {plugin!r} registers {name!r} twice")
            names.add((record.source, name))


def by_owner(results: Iterable[Iterable[Record]]) -> dict[str, list[Any]]:
    """Return the records of each plugin, in the order in which they were yielded."""
    owned: dict[str, list[Any]] = {}
    for records in results:
        for record in records:
            owned.setdefault(record.source, []).append(record)
    return owned


def claim(plugin: str, records: Iterable[Record], owners: dict[tuple[type, str], Any]) -> None:
    """Give a plugin its tasks, formats and added weights, whose names are unique.

    Args:
        plugin: name of the plugin.
        records: of it.
        owners: the records of earlier plugins by type and name; updated.

    Raises:
        BrokenPlugin: an earlier plugin has one of the names.
    """
    new = {
        (type(item), item.name): item
        for item in records
        if isinstance(item, (Task, AddedWeights, ExportFormat))
    }
    if taken := next((owners[key] for key in new if key in owners), None):
        what = UNIQUE[type(taken)]
        owned = f"registers the {what} {taken.name!r}, which is that of {taken.origin}"
        raise BrokenPlugin(f"plugin {plugin!r} {owned}")
    owners.update(new)
