"""One merged view of all backbones: lookup, filters, suggestions, aliases.

A bare name resolves to torchvision's backbone, then timm's, then a third party's, then a derived
one; if two third parties have it, the id is required. A family's catalogue and a derived
backbone's base are read on demand.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cached_property, partial
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

from zoo.errors import (
    BrokenPlugin,
    RegistryError,
    UnknownBackbone,
    UsageError,
    nearest,
)
from zoo.files import config_dir
from zoo.registry.backbone_sources import DerivedSource, Source
from zoo.registry.config import Config, load_config
from zoo.registry.discovery import BUILTIN, Switches, file_plugins
from zoo.registry.plugin_scope import current
from zoo.registry.plugins import FAILED, OK, PluginHost, PluginRecord
from zoo.spec import AddedWeights, Backbone, LocalWeights, Task, WeightFile

if TYPE_CHECKING:
    from zoo.registry.derived import Entry

log = logging.getLogger("zoo")


class Registry:
    """The backbones of all working plugins, and those derived from them.

    Args:
        host: the loaded plugins.
        config: aliases, defaults and derived backbones.
        computing: whether this process imports torch in any case.

    Raises:
        RegistryError: the source name of a derived backbone is that of a plugin.
    """

    def __init__(self, host: PluginHost, config: Config, computing: bool = False) -> None:
        self.host = host
        self.config = config
        working = [record for record in host.records if record.status == OK]
        offered = [item for record in working for item in record.weights]
        files = tuple(item for item in offered if isinstance(item, WeightFile))
        local = LocalWeights(files, config.weights_dir)
        added: dict[str, list[AddedWeights]] = {}
        for item in offered:
            if isinstance(item, AddedWeights):
                added.setdefault(item.backbone.partition("/")[0], []).append(item)
        self.sources = {
            record.name: Source(record, local, added.get(record.name, ()), self._drop, computing)
            for record in working
        }
        self.derived: dict[str, DerivedSource] = {}
        self._deriving: list[str] = []
        self._lock = RLock()
        plugins = {record.name for record in host.records}
        for entry in config.backbones.values():
            if entry.source in plugins:
                hint = "choose another name before the slash"
                raise entry.error(None, f"has the source name of plugin {entry.source}", hint)
            source = DerivedSource(entry.source, self._derive, host.switches.strict)
            self.derived.setdefault(entry.source, source).entries[entry.name] = entry

    def _drop(self, name: str, error: BrokenPlugin) -> None:
        """Record the failure of a plugin, and remove its backbones."""
        self.host.fail(name, error)
        if name in self.sources:
            self.sources[name].empty()

    @property
    def _all_sources(self) -> dict[str, Source | DerivedSource]:
        return {**self.sources, **self.derived}

    def __len__(self) -> int:
        return sum(len(source) for source in self._all_sources.values())

    def __iter__(self) -> Iterator[Backbone]:
        for source in self._all_sources.values():
            yield from source.select(lambda name: True)

    def records(self) -> list[tuple[PluginRecord, int]]:
        """Return each plugin's record with its number of backbones; reads catalogues."""
        counts = {name: len(source) for name, source in self.sources.items()}
        # A name belongs to one of the plugins that have it; the others are in conflict.
        return [
            (record, counts.get(record.name, 0) if record.status == OK else 0)
            for record in self.host.records
        ]

    @cached_property
    def plugin_options(self) -> Mapping[str, Mapping[str, Any]]:
        """The options of all working plugins, by plugin and name.

        Raises:
            RegistryError, UsageError: a registry file or an environment variable is invalid.
        """
        from zoo.registry.plugin_options import resolve_plugin_options

        return resolve_plugin_options(self.host.records, self.config.plugins)

    @property
    def tasks(self) -> Mapping[str, Task]:
        """The tasks of all working plugins by name, in loading order."""
        working = [record for record in self.host.records if record.status == OK]
        return {task.name: task for record in working for task in record.tasks}

    def task(self, name: str) -> Task:
        """Return the task of a name.

        Raises:
            UsageError: no working plugin registers it; names the registered ones.
        """
        tasks = self.tasks
        if name in tasks:
            return tasks[name]
        from zoo.registry.missing import unknown_task  # only where needed: start-up time

        raise unknown_task(name, self.host.records, tasks)

    def get(self, query: str) -> Backbone:
        """Return the backbone of an id, a bare name, an alias, or a name of published weights.

        A name of weights, such as `timm/resnet18.a1_in1k` or `ResNet50_Weights.DEFAULT`, makes
        these the default of the backbone that is returned.

        Raises:
            UnknownBackbone: there is none; has suggestions.
            BrokenPlugin: its plugin failed to load, or its base's plugin is off or failed.
            UsageError: two third parties have the bare name.
            RegistryError: its base does not exist.
        """
        prefix, slash, name = query.partition("/")
        if slash:
            source = self._all_sources.get(prefix)
            return source.get(name) if source and name in source else self._indirect(query)
        third_parties = []
        for source_name, candidate in self.sources.items():
            if query in candidate:
                if source_name in BUILTIN:
                    return candidate.get(query)
                third_parties.append(candidate)
        derived = [candidate for candidate in self.derived.values() if query in candidate]
        matches: Sequence[Source | DerivedSource] = third_parties or derived
        if len(matches) > 1:
            ids = ", ".join(f"{match.name}/{query}" for match in matches)
            raise UsageError(f"the name {query!r} is ambiguous", f"choose one of {ids}")
        return matches[0].get(query) if matches else self._indirect(query)

    def _derive(self, entry: Entry) -> Backbone:
        """Resolve the base of an entry, and derive the backbone.

        Raises:
            BrokenPlugin: the plugin of its base is off or failed.
            RegistryError: it cannot be derived; names file, line and key.
        """
        with self._lock:
            if entry.id in self._deriving:
                cycle = [*self._deriving[self._deriving.index(entry.id) :], entry.id]
                raise entry.error("extends", f"is circular: {' extends '.join(cycle)}")
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
            message = f"{entry.id} extends {entry.extends}: {error.message}"
            raise BrokenPlugin(message, error.hint) from error
        except UsageError as error:
            from zoo.registry.missing import unavailable_plugin

            base = self.config.aliases.get(entry.extends, entry.extends)
            unknown = isinstance(error, UnknownBackbone)
            missing = unavailable_plugin(base, self.host.records) if unknown else ""
            if missing:
                message = f"{entry.id} extends {entry.extends}, and plugin {missing}"
                raise BrokenPlugin(message, error.hint) from error
            problem = f"names no base: {error.message}"
            raise entry.error("extends", problem, error.hint) from error

    def _indirect(self, query: str) -> Backbone:
        """Return the backbone of an alias or a name of weights, or raise the error for it."""
        target = self.config.aliases.get(query)
        if target is not None and target not in self.config.aliases:
            return self.get(target)
        if (renamed := self._renamed(query)) is not None:
            return renamed
        from zoo.registry.weight_names import find_named  # only where needed: start-up time

        if (named := find_named(query, self.sources, self.derived)) is not None:
            return named
        raise self._unknown(query)

    def _renamed(self, query: str) -> Backbone | None:
        """Return the backbone that had a name or id before; None without one.

        Raises:
            UsageError: several had it.
        """
        prefix = query.rpartition("/")[0]
        taken = {record.name for record in self.host.records if record.name == prefix}
        candidates = [
            (source, name)
            for source in self.sources.values()
            if source.name in (taken or {source.name}) and (name := source.renamed(query))
        ]
        if len(candidates) > 1:
            ids = ", ".join(f"{source.name}/{name}" for source, name in candidates)
            raise UsageError(f"the former name {query!r} is ambiguous", f"choose one of {ids}")
        return candidates[0][0].get(candidates[0][1]) if candidates else None

    def _unknown(self, query: str) -> BrokenPlugin | UnknownBackbone:
        """Return the most specific error for a name."""
        from zoo.registry.missing import unknown_backbone
        from zoo.registry.weight_names import suggest_named

        suggestions = suggest_named(query, self.sources) or self.suggest(query)
        return unknown_backbone(query, self.host.records, suggestions)

    def complete(self, prefix: str) -> list[str]:
        """Return the names, ids and aliases that begin with a prefix.

        A family whose catalogue is not cached yet is left out: enumerating it takes seconds.
        """
        sources = [s for s in self._all_sources.values() if s.is_enumerated()]
        ids = {f"{source.name}/{name}" for source in sources for name in source.names()}
        names = ids | {each.partition("/")[2] for each in ids} | {*self.config.aliases}
        return sorted(name for name in names if name.startswith(prefix))

    def suggest(self, query: str) -> tuple[str, ...]:
        """Return the nearest existing names, best first."""
        bare = query.partition("/")[2] or query
        sources = self._all_sources.values()
        names = {name: None for source in sources for name in source.names()}
        matches = nearest(bare, [*names, *self.config.aliases])
        if "/" not in query:
            return matches
        ids = {
            name: f"{source.name}/{name}"
            for source in reversed(sources)
            for name in matches
            if name in source
        }
        return tuple(ids.get(name, name) for name in matches)

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
            patterns: shell-style patterns of ids or names, or names of published weights; one of
                them must match; empty for all.
            source: name of a plugin, or source name of derived backbones.
            task: name of the task.
            pretrained: with or without published weights.
            license: kind (one of `zoo.registry.licenses.KINDS`) or shell-style pattern of the
                default weights' licence; matches no backbone without weights.

        Raises:
            UsageError: the source is unknown, or the licence is a misspelt kind.
            BrokenPlugin: the source is a plugin that failed.
            RegistryError: the base of a matching derived backbone does not exist.
        """
        sources = self._all_sources
        if source is not None and source not in sources:
            raise self._no_source(source)
        selected = [sources[source]] if source else sources.values()
        named = self._named(patterns)
        patterns = (*patterns, *named)
        backbones = [
            named.get(backbone.id, backbone)
            for candidate in selected
            for backbone in candidate.select(partial(_matches, patterns, candidate.name))
            if (task is None or backbone.task == task)
            and (pretrained is None or backbone.pretrained == pretrained)
        ]
        failed = {record.name for record in self.host.records if record.status == FAILED}
        if source in failed:  # reading its catalogue may have failed
            raise self._no_source(str(source))
        if license is None:
            return backbones
        from zoo.registry.licenses import with_license  # only where needed: start-up time

        return with_license(license, backbones, self)

    def _no_source(self, name: str) -> BrokenPlugin | UsageError:
        """Return the most specific error for the name of a source."""
        from zoo.registry.missing import unknown_source

        return unknown_source(name, self.host.records, list(self._all_sources))

    def _named(self, patterns: Sequence[str]) -> dict[str, Backbone]:
        """Return the backbones, by id, that patterns name by their weights."""
        named = [p for p in patterns if ("." in p or ":" in p) and not set("*?[") & set(p)]
        if not named:
            return {}
        from zoo.registry.weight_names import find_named

        names = {name for source in self._all_sources.values() for name in source.names()}
        backbones = (
            find_named(pattern, self.sources, self.derived)
            for pattern in named
            if pattern.rpartition("/")[2] not in names
        )
        return {backbone.id: backbone for backbone in backbones if backbone is not None}


def _matches(patterns: Sequence[str], source: str, name: str) -> bool:
    names = (name, f"{source}/{name}")
    return not patterns or any(fnmatchcase(n, p) for n in names for p in patterns)


def load_registry(
    without: Sequence[str] = (),
    file: str | Path | None = None,
    plugins: Sequence[str | Path] = (),
    computing: bool = False,
) -> Registry:
    """Return the registry of this process, cached by its arguments.

    What the process selects by `zoo.configure` and registers by `zoo.register` is added to them.

    Args:
        without: plugins to exclude, as `--no-plugin`.
        file: a registry file that overrides the shipped and the user's one, as `--registry`.
        plugins: python files of plugins, as `--plugin`.
        computing: whether this process imports torch in any case.

    Raises:
        UsageError: a switch names an unknown plugin, or a file cannot be a plugin.
        RegistryError: a `registry.toml` is invalid.
        BrokenPlugin: a plugin failed and `ZOO_STRICT=1` is set.
    """
    scope = current()
    file = scope.selection.file if file is None else file
    overriding = Path(file).absolute() if file is not None else None
    switches, files = _selected(without, plugins)
    key = switches, overriding, files, computing
    with scope.loading:
        if key not in scope.registries:
            # Before any plugin runs, so that an invalid file is the only error.
            config = load_config(overriding, config_dir() / "registry.toml")
            scope.registries[key] = Registry(_host(switches, files), config, computing)
        registry: Registry = scope.registries[key]
    return registry


def load_plugins(without: Sequence[str] = (), plugins: Sequence[str | Path] = ()) -> PluginHost:
    """Load the plugins of this process, whatever its registry files are; not cached.

    Args:
        without: as for `load_registry`.
        plugins: as for `load_registry`.

    Raises:
        UsageError: as `load_registry`.
        BrokenPlugin: as `load_registry`.
    """
    return _host(*_selected(without, plugins))


def _selected(
    without: Sequence[str], plugins: Sequence[str | Path]
) -> tuple[Switches, tuple[Path, ...]]:
    """Return the switches and the files of plugins, those of the process included."""
    selected = current().selection
    switches = Switches.from_environment((*selected.without, *without))
    files = dict.fromkeys(Path(each).absolute() for each in (*selected.plugins, *plugins))
    return switches, tuple(files)


def _host(switches: Switches, files: Sequence[Path]) -> PluginHost:
    scope = current()
    available = [*scope.plugins(), *scope.registered.values(), *file_plugins(files)]
    return PluginHost(switches, log.warning, available)
