"""Sources of backbones: a plugin, or the registry files that derive them under one source name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from zoo.errors import BrokenPlugin, UsageError, did_you_mean, one_line
from zoo.records import with_fields
from zoo.registry.catalogue import catalogue_file, load_catalogue, restore_backbone
from zoo.registry.plugin_code import plugin_code
from zoo.registry.plugins import PluginRecord
from zoo.spec import AddedWeights, Backbone, Family, LocalWeights

if TYPE_CHECKING:
    from zoo.registry.derived import Entry

log = logging.getLogger("zoo")


class Source:
    """The backbones of one plugin, by name; full descriptions are created on demand.

    Args:
        record: of the plugin.
        local: where copies of published weights may be.
        added: weights of other plugins for these backbones.
        drop: called with the name of a plugin and its error.
        computing: as for `load_catalogue`.
    """

    def __init__(
        self,
        record: PluginRecord,
        local: LocalWeights,
        added: Sequence[AddedWeights],
        drop: Callable[[str, BrokenPlugin], None],
        computing: bool = False,
    ) -> None:
        self.name = record.name
        self._computing = computing
        self._record = record
        owner = {"source": self.name, "plugin": self.name, "origin": record.origin}
        self._owner: dict[str, Any] = {**owner, "local": local}
        self._drop = drop
        self._added: dict[str, list[AddedWeights]] = {}
        for item in added:
            self._added.setdefault(item.backbone.partition("/")[2], []).append(item)

    @cached_property
    def _entries(self) -> Mapping[str, Backbone | dict[str, Any]]:
        entries: dict[str, Backbone | dict[str, Any]] = {}
        try:
            for item in self._record.backbones:
                new: dict[str, Any]
                if isinstance(item, Family):
                    with plugin_code(self.name, f"the catalogue of {item.distribution}"):
                        new = load_catalogue(item, log.info, self._computing)
                else:
                    new = {item.name: with_fields(item, **self._owner)}
                if duplicates := entries.keys() & new.keys():
                    raise BrokenPlugin(f"plugin {self.name!r} registers {min(duplicates)!r} twice")
                entries.update(new)
        except BrokenPlugin as error:
            self._drop(self.name, error)
            return {}
        # A plugin that adds weights to a backbone that does not exist has failed.
        unknown = [added for name in self._added.keys() - entries for added in self._added[name]]
        for added in unknown:
            hint = did_you_mean(added.backbone.partition("/")[2], list(entries))
            problem = f"adds weights to {added.backbone}, which does not exist"
            self._drop(added.source, BrokenPlugin(problem, hint))
        return {} if any(added.source == self.name for added in unknown) else entries

    def is_enumerated(self) -> bool:
        """Whether its names can be read without enumerating a library."""
        families = [item for item in self._record.backbones if isinstance(item, Family)]
        try:
            return all(catalogue_file(family).is_file() for family in families)
        except BrokenPlugin:
            return True  # which reading it reports

    @cached_property
    def _former(self) -> Mapping[str, str]:
        """The names of backbones by their former names and ids, which never hide a present one."""
        former: dict[str, str] = {}
        for name, entry in self._entries.items():
            aliases = entry.aliases if isinstance(entry, Backbone) else entry.get("aliases", ())
            for alias in aliases:
                former.setdefault(alias.removeprefix(f"{self.name}/"), name)
        return former

    def renamed(self, query: str) -> str | None:
        """Return the name of the backbone that had a name or id before; None without one."""
        return self._former.get(query.removeprefix(f"{self.name}/"))

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def names(self) -> Iterable[str]:
        """Return every name, without creating any description."""
        return self._entries.keys()

    def _describe(self, name: str) -> Backbone:
        entry = self._entries[name]
        try:
            if not isinstance(entry, Backbone):
                entry = restore_backbone(entry, **self._owner)
        except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
            message = f"the entry {name!r} in its catalogue cannot be read: {one_line(error)}"
            raise BrokenPlugin(message) from error
        return self._with_added(entry) if name in self._added else entry

    def _with_added(self, backbone: Backbone) -> Backbone:
        """Return a backbone with the weights that other plugins add."""
        for item in list(self._added[backbone.name]):
            if any(weights.tag == item.weights.tag for weights in backbone.weights):
                self._added[backbone.name].remove(item)
                problem = f"adds weights {item.weights.tag!r} to {backbone.id}, which has that tag"
                self._drop(item.source, BrokenPlugin(problem))
            else:
                backbone = replace(backbone, weights=(*backbone.weights, item.weights))
        return backbone

    def empty(self) -> None:
        """Remove all backbones."""
        self._entries = {}

    def _fail(self, error: BrokenPlugin) -> None:
        self._drop(self.name, error)
        self.empty()

    def get(self, name: str) -> Backbone:
        """Return one backbone.

        Raises:
            BrokenPlugin: its catalogue entry cannot be read.
        """
        try:
            return self._describe(name)
        except BrokenPlugin as error:
            self._fail(error)
            raise

    def select(self, predicate: Callable[[str], bool]) -> list[Backbone]:
        """Return the backbones whose names satisfy a predicate; none if one cannot be read."""
        try:
            return [self._describe(name) for name in self._entries if predicate(name)]
        except BrokenPlugin as error:
            self._fail(error)
            return []


class DerivedSource:
    """The backbones that registry files derive under one source name.

    Args:
        name: the part of their ids before the slash.
        derive: derives an entry; raises BrokenPlugin where the base's plugin is off or failed.
        strict: raise that error from `select` too, instead of skipping the entry.
    """

    def __init__(self, name: str, derive: Callable[[Entry], Backbone], strict: bool) -> None:
        self.name = name
        self.entries: dict[str, Entry] = {}
        self._derive = derive
        self._strict = strict
        self._derived: dict[str, Backbone] = {}
        self._left_out: set[str] = set()

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def __len__(self) -> int:
        return len(self.entries) - len(self._left_out)

    def is_enumerated(self) -> bool:
        """Whether its names can be read without enumerating a library: always."""
        return True

    def names(self) -> Iterable[str]:
        """Return every name, without resolving any base."""
        return self.entries.keys()

    def get(self, name: str) -> Backbone:
        """Return one backbone.

        Raises:
            BrokenPlugin: the plugin of its base is off or failed.
            RegistryError: there is no such base, or the entry does not fit it.
        """
        if name not in self._derived:
            self._derived[name] = self._derive(self.entries[name])
        return self._derived[name]

    def select(self, predicate: Callable[[str], bool]) -> list[Backbone]:
        """Return the backbones whose names satisfy a predicate, where their base is available.

        Raises:
            RegistryError: as `get`.
        """
        names = filter(predicate, self.entries)
        return [backbone for name in names if (backbone := self._get_or_skip(name))]

    def _get_or_skip(self, name: str) -> Backbone | None:
        try:
            return self.get(name)
        except BrokenPlugin as error:
            if self._strict:
                raise
            if name not in self._left_out:
                self._left_out.add(name)
                log.warning("skipping a backbone: %s", error.message)
            return None
