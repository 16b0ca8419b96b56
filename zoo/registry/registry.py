"""One merged view of every backbone: lookup, filter, suggestions, aliases.

A bare name means torchvision's, then timm's, then a third party's, then a derived one's; where two
third parties have it, the id must be given. A family's catalogue is read only when a look-up needs
it, and a derived backbone's base is looked up when the derived one is asked for.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING

from zoo.errors import (
    BrokenPlugin,
    RegistryError,
    UnknownBackbone,
    UsageError,
    did_you_mean,
    nearest,
)
from zoo.files import config_dir
from zoo.registry.backbone_sources import DerivedSource, Source
from zoo.registry.config import Config, load_config
from zoo.registry.plugin_scope import current
from zoo.registry.plugins import (
    BUILTIN,
    FAILED,
    OFF,
    OK,
    PluginHost,
    PluginRecord,
    Switches,
    file_plugins,
)
from zoo.spec import Backbone, Task

if TYPE_CHECKING:
    from zoo.registry.derived import Entry

log = logging.getLogger("zoo")


class Registry:
    """Every backbone of every plugin that works, and those derived from them.

    Args:
        host: the loaded plugins.
        config: aliases, defaults and derived backbones.

    Raises:
        RegistryError: a derived backbone would stand among a plugin's.
    """

    def __init__(self, host: PluginHost, config: Config) -> None:
        self.host = host
        self.config = config
        self.sources = {
            record.name: Source(record, host) for record in host.records if record.status == OK
        }
        self.derived: dict[str, DerivedSource] = {}
        self._deriving: list[str] = []
        self._lock = RLock()
        plugins = {record.name for record in host.records}
        for entry in config.backbones.values():
            if entry.source in plugins:
                hint = "put another name before the slash"
                raise entry.error(None, f"would stand among those of plugin {entry.source}", hint)
            home = DerivedSource(entry.source, self._derive, host.switches.strict)
            self.derived.setdefault(entry.source, home).entries[entry.name] = entry

    @property
    def _homes(self) -> dict[str, Source | DerivedSource]:
        return {**self.sources, **self.derived}

    def __len__(self) -> int:
        return sum(len(home) for home in self._homes.values())

    def __iter__(self) -> Iterator[Backbone]:
        for home in self._homes.values():
            yield from home.select(lambda name: True)

    def records(self) -> list[tuple[PluginRecord, int]]:
        """Return each plugin's record with its number of backbones, catalogues read."""
        counts = {name: len(source) for name, source in self.sources.items()}
        return [(record, counts.get(record.name, 0)) for record in self.host.records]

    @property
    def tasks(self) -> Mapping[str, Task]:
        """Every task of every plugin that works, by name, in loading order."""
        working = [record for record in self.host.records if record.status == OK]
        return {task.name: task for record in working for task in record.tasks}

    def task(self, name: str) -> Task:
        """Return the task of a name.

        Raises:
            UsageError: no plugin that works registers it; names those that are registered.
        """
        tasks = self.tasks
        if name in tasks:
            return tasks[name]
        off = [record.name for record in self.host.records if record.status == OFF]
        failed = [record.name for record in self.host.records if record.status == FAILED]
        left_out = {"switched off": off, "failed": failed}
        notes = [f"{what}: {', '.join(names)}" for what, names in left_out.items() if names]
        note = f" (plugins {'; '.join(notes)})" if notes else ""
        known = ", ".join(f"{task.name} by {task.origin}" for task in tasks.values()) or "none"
        hint = f"install a plugin that does, or take a backbone of another; registered: {known}"
        raise UsageError(f"no plugin registers the task {name!r}{note}", hint)

    def get(self, query: str) -> Backbone:
        """Return the backbone of an id, a bare name or an alias.

        Raises:
            UnknownBackbone: there is none; carries suggestions.
            BrokenPlugin: its plugin failed to load, or its base's plugin is off or failed.
            UsageError: two third parties have the bare name.
            RegistryError: it is derived from what is not there.
        """
        source, slash, name = query.partition("/")
        if slash:
            home = self._homes.get(source)
            return home.get(name) if home and name in home else self.get(self._alias(query))
        third_parties = []
        for source_name, candidate in self.sources.items():
            if query in candidate:
                if source_name in BUILTIN:
                    return candidate.get(query)
                third_parties.append(candidate)
        derived = [candidate for candidate in self.derived.values() if query in candidate]
        holders: Sequence[Source | DerivedSource] = third_parties or derived
        if len(holders) > 1:
            ids = ", ".join(f"{holder.name}/{query}" for holder in holders)
            raise UsageError(f"the name {query!r} is ambiguous", f"choose one of {ids}")
        return holders[0].get(query) if holders else self.get(self._alias(query))

    def _derive(self, entry: Entry) -> Backbone:
        """Look the base of a derived backbone up, and lay the entry over it.

        Raises:
            BrokenPlugin: the plugin of its base is off or failed.
            RegistryError: it cannot be derived; says file, line and key.
        """
        with self._lock:
            if entry.id in self._deriving:
                circle = [*self._deriving[self._deriving.index(entry.id) :], entry.id]
                raise entry.error("extends", f"goes round in a circle: {' extends '.join(circle)}")
            self._deriving.append(entry.id)
            try:
                return entry.derive(self._base(entry))
            finally:
                self._deriving.pop()

    def _base(self, entry: Entry) -> Backbone:
        try:
            return self.get(entry.extends)
        except RegistryError:
            raise
        except BrokenPlugin as error:
            said = f"{entry.id} extends {entry.extends}: {error.message}"
            raise BrokenPlugin(said, error.hint) from error
        except UsageError as error:
            away = self._away(entry.extends) if isinstance(error, UnknownBackbone) else None
            if away is not None:
                said = f"{entry.id} extends {entry.extends}, and plugin {away}"
                raise BrokenPlugin(said, error.hint) from error
            said = f"names no base: {error.message}"
            raise entry.error("extends", said, error.hint) from error

    def _away(self, query: str) -> str | None:
        """Say of which plugin that is off or failed the name may be; None of none."""
        source, slash, _ = self.config.aliases.get(query, query).partition("/")
        for record in self.host.records:
            if record.status in (OFF, FAILED) and (record.name == source or not slash):
                what = "is switched off" if record.status == OFF else f"failed: {record.error}"
                return f"{record.name} {what}"
        return None

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
        if any(record.name == source and record.status == OFF for record in self.host.records):
            note = f"plugin {source} is switched off"
        raise UnknownBackbone(query, self.suggest(query), note)

    def suggest(self, query: str) -> tuple[str, ...]:
        """Return the nearest names to one that does not exist, best first."""
        bare = query.partition("/")[2] or query
        names = {name: None for home in self._homes.values() for name in home.names()}
        found = nearest(bare, [*names, *self.config.aliases])
        if "/" not in query:
            return found
        homes = {
            name: f"{home.name}/{name}"
            for home in reversed(self._homes.values())
            for name in found
            if name in home
        }
        return tuple(homes.get(name, name) for name in found)

    def find(
        self,
        patterns: Sequence[str] = (),
        *,
        source: str | None = None,
        task: str | None = None,
        pretrained: bool | None = None,
        license: str | None = None,
    ) -> list[Backbone]:
        """Return the backbones that match every filter, in the registry's order.

        Args:
            patterns: shell-style wildcards on id or name; any of them; none for all.
            source: of this plugin, or derived under this name.
            task: for this task.
            pretrained: with or without published weights.
            license: whose default weights have a licence of this kind (one of
                `zoo.registry.licenses.KINDS`) or text, wildcards allowed. Where no weights are
                published there is nothing to license, so that no licence matches.

        Raises:
            UsageError: no plugin has the name of the source, or the licence is a misspelt kind.
            RegistryError: one that is wanted is derived from what is not there.
        """
        homes = self._homes
        if source is not None and source not in homes:
            known = list(homes)
            hint = did_you_mean(source, known, f"one of {', '.join(known)}")
            raise UsageError(f"no source is named {source!r}", hint)
        chosen = [homes[source]] if source else homes.values()
        found = [
            backbone
            for candidate in chosen
            for backbone in candidate.select(partial(_matches, patterns, candidate.name))
            if (task is None or backbone.task == task)
            and (pretrained is None or backbone.pretrained == pretrained)
        ]
        return found if license is None else self._licensed(found, license)

    def _licensed(self, found: Sequence[Backbone], wanted: str) -> list[Backbone]:
        from zoo.registry.licenses import KINDS, matches

        def held(backbones: Iterable[Backbone]) -> list[Backbone]:
            return [b for b in backbones if b.weights and matches(b.license, wanted)]

        kept = held(found)
        near = () if kept or wanted.strip().lower() in KINDS else nearest(wanted, KINDS)
        if near and not held(self):
            message = f"no licence and no kind of licence is named {wanted!r}"
            raise UsageError(message, f"did you mean {', '.join(near)}?")
        return kept


def _matches(patterns: Sequence[str], source: str, name: str) -> bool:
    both = (name, f"{source}/{name}")
    return not patterns or any(fnmatchcase(n, p) for n in both for p in patterns)


def load_registry(
    without: Sequence[str] = (),
    file: str | Path | None = None,
    plugins: Sequence[str | Path] = (),
) -> Registry:
    """Return this process's registry, loading the plugins at the first call.

    Args:
        without: plugins to leave out, as `--no-plugin` does.
        file: a registry file to lay over the shipped one and the user's, as `--registry` does.
        plugins: python files that are plugins, as `--plugin` does.

    Raises:
        UsageError: a switch names a plugin that is not there, or a file cannot be a plugin.
        RegistryError: a `registry.toml` cannot be used.
        BrokenPlugin: a plugin failed and `ZOO_STRICT=1` is set.
    """
    scope, switches = current(), Switches.from_environment(without)
    laid = Path(file).absolute() if file is not None else None
    files = tuple(dict.fromkeys(Path(plugin).absolute() for plugin in plugins))
    key = switches, laid, files
    if key not in scope.registries:
        # Read and checked before any plugin runs, so that a slip is told by itself.
        config = load_config(laid, config_dir() / "registry.toml")
        named = file_plugins(files)
        host = PluginHost(switches, log.warning, [*scope.plugins(), *named])
        scope.registries[key] = Registry(host, config)
    registry: Registry = scope.registries[key]
    return registry
