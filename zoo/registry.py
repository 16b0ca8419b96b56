"""One merged view of every backbone: lookup, filter, suggestions, aliases.

A bare name means torchvision's, then timm's, then a third party's; where two third parties have
it, the id must be given. A family's catalogue is read only when a look-up needs it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property, partial
from typing import Any

from zoo.catalogue import load_catalogue
from zoo.config import Config, load_config
from zoo.errors import BrokenPlugin, UnknownBackbone, UsageError, did_you_mean, nearest, one_line
from zoo.plugins import BUILTIN, FAILED, OK, PluginHost, PluginRecord, Switches
from zoo.spec import Backbone, Family, backbone_from_dict

log = logging.getLogger("zoo")


class Source:
    """The backbones of one plugin, by name; described in full when they are asked for."""

    def __init__(self, record: PluginRecord, host: PluginHost) -> None:
        self.name = record.name
        self._record = record
        self._host = host

    @property
    def origin(self) -> str:
        """What brought these backbones, in words."""
        return f"plugin {self.name} ({self._record.distribution} {self._record.version})"

    @cached_property
    def _entries(self) -> Mapping[str, Backbone | dict[str, Any]]:
        entries: dict[str, Backbone | dict[str, Any]] = {}
        try:
            for item in self._record.found:
                new: dict[str, Any] = (
                    load_catalogue(item, log.info)
                    if isinstance(item, Family)
                    else {item.name: item}
                )
                if twice := entries.keys() & new.keys():
                    raise BrokenPlugin(f"plugin {self.name!r} registers {min(twice)!r} twice")
                entries.update(new)
        except BrokenPlugin as error:
            self._host.fail(self.name, error)
            return {}
        return entries

    def __contains__(self, name: str) -> bool:
        return name in self._entries

    def __len__(self) -> int:
        return len(self._entries)

    def names(self) -> Iterable[str]:
        """Return every name, without describing anything."""
        return self._entries.keys()

    def _describe(self, name: str) -> Backbone:
        entry = self._entries[name]
        try:
            backbone = entry if isinstance(entry, Backbone) else backbone_from_dict(entry)
        except (KeyError, TypeError, ValueError, AttributeError, UsageError) as error:
            reason = f"its catalogue describes {name!r} in a way zoo cannot read"
            raise BrokenPlugin(f"{reason}: {one_line(error)}") from error
        return backbone.with_source(self.name, self.origin)

    def _fail(self, error: BrokenPlugin) -> None:
        """Leave the source out from here on, with a note in its plugin's record."""
        self._host.fail(self.name, error)
        self._entries = {}

    def get(self, name: str) -> Backbone:
        """Return one backbone in full.

        Raises:
            BrokenPlugin: what is known about it cannot be read.
        """
        try:
            return self._describe(name)
        except BrokenPlugin as error:
            self._fail(error)
            raise

    def select(self, keep: Callable[[str], bool]) -> list[Backbone]:
        """Return the backbones whose names are to be kept; none where one cannot be read."""
        try:
            return [self._describe(name) for name in self._entries if keep(name)]
        except BrokenPlugin as error:
            self._fail(error)
            return []


class Registry:
    """Every backbone of every plugin that works.

    Args:
        host: the loaded plugins.
        config: aliases and defaults.
    """

    def __init__(self, host: PluginHost, config: Config) -> None:
        self.host = host
        self.config = config
        self.sources = {
            record.name: Source(record, host) for record in host.records if record.status == OK
        }

    def __len__(self) -> int:
        return sum(len(source) for source in self.sources.values())

    def __iter__(self) -> Iterator[Backbone]:
        for source in self.sources.values():
            yield from source.select(lambda name: True)

    def records(self) -> list[tuple[PluginRecord, int]]:
        """Return each plugin's record with its number of backbones, catalogues read."""
        counts = {name: len(source) for name, source in self.sources.items()}
        return [(record, counts.get(record.name, 0)) for record in self.host.records]

    def get(self, query: str) -> Backbone:
        """Return the backbone of an id, a bare name or an alias.

        Raises:
            UnknownBackbone: there is none; carries suggestions.
            BrokenPlugin: its plugin failed to load.
            UsageError: two third parties have the bare name.
        """
        source, slash, name = query.partition("/")
        if slash:
            if source in self.sources and name in self.sources[source]:
                return self.sources[source].get(name)
            return self.get(self._alias(query))
        holders = []
        for source_name, candidate in self.sources.items():
            if query in candidate:
                if source_name in BUILTIN:
                    return candidate.get(query)
                holders.append(candidate)
        if len(holders) > 1:
            ids = ", ".join(f"{holder.name}/{query}" for holder in holders)
            raise UsageError(f"the name {query!r} is ambiguous", f"choose one of {ids}")
        return holders[0].get(query) if holders else self.get(self._alias(query))

    def _alias(self, query: str) -> str:
        """Return what an alias stands for, or raise what is known about the name."""
        target = self.config.aliases.get(query)
        if target is not None and target not in self.config.aliases:
            return target
        source = query.partition("/")[0]
        for record in self.host.records:
            if record.name == source and record.status == FAILED:
                hint = f"`zoo plugins` shows what happened to {source}"
                raise BrokenPlugin(f"{query} comes from a plugin that failed: {record.error}", hint)
        failed = [record.name for record in self.host.records if record.status == FAILED]
        note = f"plugins that failed to load: {', '.join(failed)}" if failed else None
        raise UnknownBackbone(query, self.suggest(query), note)

    def suggest(self, query: str) -> tuple[str, ...]:
        """Return the nearest names to one that does not exist, best first."""
        bare = query.partition("/")[2] or query
        names = {name: None for source in self.sources.values() for name in source.names()}
        found = nearest(bare, [*names, *self.config.aliases])
        if "/" not in query:
            return found
        homes = {
            name: f"{source.name}/{name}"
            for source in reversed(self.sources.values())
            for name in found
            if name in source
        }
        return tuple(homes.get(name, name) for name in found)

    def find(
        self,
        patterns: Sequence[str] = (),
        *,
        source: str | None = None,
        task: str | None = None,
        pretrained: bool | None = None,
    ) -> list[Backbone]:
        """Return the backbones that match every filter, in the registry's order.

        Args:
            patterns: shell-style wildcards on id or name; any of them; none for all.
            source: of this plugin.
            task: for this task.
            pretrained: with or without published weights.

        Raises:
            UsageError: no plugin has the name of the source.
        """
        if source is not None and source not in self.sources:
            known = list(self.sources)
            hint = did_you_mean(source, known, f"one of {', '.join(known)}")
            raise UsageError(f"no source is named {source!r}", hint)
        chosen = [self.sources[source]] if source else self.sources.values()
        return [
            backbone
            for candidate in chosen
            for backbone in candidate.select(partial(_matches, patterns, candidate.name))
            if (task is None or backbone.task == task)
            and (pretrained is None or backbone.pretrained == pretrained)
        ]


def _matches(patterns: Sequence[str], source: str, name: str) -> bool:
    both = (name, f"{source}/{name}")
    return not patterns or any(fnmatchcase(n, p) for n in both for p in patterns)


_registries: dict[Switches, Registry] = {}


def load_registry(without: Sequence[str] = ()) -> Registry:
    """Return this process's registry, loading the plugins at the first call.

    Args:
        without: plugins to leave out, as `--no-plugin` does.

    Raises:
        UsageError: a switch names a plugin that is not there.
        RegistryError: a `registry.toml` cannot be used.
        BrokenPlugin: a plugin failed and `ZOO_STRICT=1` is set.
    """
    switches = Switches.from_environment(without)
    if switches not in _registries:
        _registries[switches] = Registry(PluginHost(switches, log.warning), load_config())
    return _registries[switches]
