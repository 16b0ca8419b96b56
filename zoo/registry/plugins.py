"""Load plugins one at a time, and record the outcome of each.

Built-in plugins are loaded first, through the same hooks. A failure (an import error, an exit, a
misspelt hook, an invalid result, a duplicate name) is recorded with its plugin as a status and one
sentence, and the other plugins are unaffected. `ZOO_STRICT=1` raises instead.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo import __version__, hookspecs
from zoo.errors import INTERRUPTS, BrokenPlugin, one_line
from zoo.registry.collection import Collection, Record, by_owner, claim
from zoo.registry.discovery import BUILTIN, NO_VERSION, Plugin, Switches, discover
from zoo.registry.hook_manager import HookManager, Options, Outcome, Results
from zoo.registry.plugin_checks import check_hooks, check_interface, check_package, check_targets
from zoo.registry.plugin_code import importing
from zoo.spec import (
    AddedWeights,
    Backbone,
    ExportFormat,
    Family,
    PluginOption,
    Task,
    WeightFile,
)

if TYPE_CHECKING:
    from zoo.events import Event

# The fields of a record that collecting hooks fill.
COLLECTED = ("backbones", "tasks", "weights", "formats", "options")
OK, OFF, FAILED, CONFLICT = "ok", "off", "failed", "conflict"


@dataclass(frozen=True)
class PluginRecord:
    """The state of one plugin.

    Args:
        name: of the entry point, the source in its backbones' ids.
        module: of the entry point.
        distribution: the installed package.
        version: of the package.
        status: `ok`, `off` (switched off), `failed` or `conflict`.
        error: one sentence, where it failed or is in conflict.
        trace: the traceback of the error, if any.
        seconds: wall time of its import and its collecting hooks.
        backbones: registered ones.
        tasks: registered ones.
        weights: registered for backbones of other plugins.
        formats: registered ones.
        options: that it registers.
        hooks: names of the hooks that it implements; empty if it was not imported.
        file: the python file of `--plugin`; None for an installed plugin.
    """

    name: str
    module: str
    distribution: str
    version: str
    status: str = OK
    error: str | None = None
    trace: str | None = None
    seconds: float = 0.0
    backbones: tuple[Backbone | Family, ...] = field(default=(), repr=False)
    tasks: tuple[Task, ...] = field(default=(), repr=False)
    weights: tuple[WeightFile | AddedWeights, ...] = field(default=(), repr=False)
    formats: tuple[ExportFormat, ...] = field(default=(), repr=False)
    options: tuple[PluginOption, ...] = ()
    hooks: tuple[str, ...] = ()
    file: Path | None = None

    @property
    def home(self) -> str:
        """Its package with version, or its file, as text."""
        if self.file is not None:
            return f"file {self.file}"
        return " ".join(part for part in (self.distribution, self.version) if part != NO_VERSION)

    @property
    def origin(self) -> str:
        """Name and package of the plugin, the origin of its backbones and tasks."""
        return f"plugin {self.name} ({self.home})"


def _resolve_names(plugins: Iterable[Plugin]) -> Iterator[tuple[Plugin, PluginRecord]]:
    """Yield each plugin with its record; a name belongs to the first, later ones conflict."""
    owners: dict[str, PluginRecord] = {}
    for plugin in plugins:
        name, module, distribution, version, file, *_ = plugin
        record = PluginRecord(name, module, distribution, version, file=file)
        owner = owners.setdefault(name, record)
        if owner is not record:
            if plugin.packaged and (owner.distribution, owner.module) == (distribution, module):
                continue  # an editable install can be listed twice
            taken_by = owner.home if owner.file else owner.distribution
            error = f"the name {name!r} is already taken by {taken_by}"
            record = replace(record, status=CONFLICT, error=error)
        yield plugin, record


class PluginHost:
    """The loaded plugins of this process.

    Args:
        switches: select the plugins to load.
        warn: called with one sentence for each plugin that failed or conflicts.
        plugins: available ones, in loading order; None for built-in and installed ones.

    Raises:
        UsageError: a switch names an unknown plugin.
        BrokenPlugin: a plugin failed and the switches are strict.
    """

    def __init__(
        self,
        switches: Switches,
        warn: Callable[[str], None],
        plugins: Sequence[Plugin] | None = None,
    ) -> None:
        self.switches = switches
        self._warn = warn
        self.manager = HookManager(hookspecs)
        if switches.trace:
            from zoo.registry.hook_trace import trace_calls

            trace_calls(self.manager)
        resolved = list(_resolve_names(discover() if plugins is None else plugins))
        switches.check(list(dict.fromkeys(record.name for _, record in resolved)))
        self.records: list[PluginRecord] = []
        for plugin, record in resolved:
            if record.status == CONFLICT:
                self._report(record)
            elif switches.off(plugin):
                record = replace(record, status=OFF)
            else:
                record = self._load(plugin, record)
            self.records.append(record)
        self._collect()

    def _report(self, record: PluginRecord) -> None:
        message = f"plugin {record.name!r} ({record.home}) is left out"
        if self.switches.strict:
            raise BrokenPlugin(f"{message}: {record.error}")
        self._warn(f"{message}: {record.error}")

    def _load(self, plugin: Plugin, record: PluginRecord) -> PluginRecord:
        start = time.perf_counter()
        try:
            # stdout is for the command's own output, such as JSON.
            with redirect_stdout(sys.stderr), importing(record.name, self._warn):
                check_package(record.name, plugin.requires, __version__)
                module = plugin.load()
                check_interface(record.name, module)
                self.manager.register(module, record.name)
                callers = self.manager.get_hookcallers(module) or ()
                record = replace(record, hooks=tuple(caller.name for caller in callers))
                check_hooks(self.manager, record.name, module)
        except INTERRUPTS:
            raise
        except BaseException as error:  # SystemExit, and other classes of a plugin's own
            # By name: another plugin may have registered the same object.
            if self.manager.has_plugin(record.name):
                self.manager.unregister(name=record.name)
            record = self._failed(record, error)
        return replace(record, seconds=time.perf_counter() - start)

    def _failed(
        self, record: PluginRecord, error: BaseException, hook: str | None = None
    ) -> PluginRecord:
        message = error.message if isinstance(error, BrokenPlugin) else one_line(error)
        prefix = f"plugin {record.name!r} "  # printed before every message of a record
        message = f"it {message.removeprefix(prefix)}" if message.startswith(prefix) else message
        message = f"in {hook}: {message}" if hook else message
        trace = "".join(traceback.format_exception(error))
        emptied: dict[str, Any] = dict.fromkeys(COLLECTED, ())
        record = replace(record, status=FAILED, error=message, trace=trace, **emptied)
        self._report(record)
        return record

    def _collect(self) -> None:
        """Call the collecting hooks, and store the results in each plugin's record."""
        backbones = self._call_collecting("zoo_register_backbones", Backbone, Family)
        weights = self._call_collecting("zoo_register_weights", WeightFile, AddedWeights)
        tasks = self._call_collecting("zoo_register_tasks", Task)
        formats = self._call_collecting("zoo_register_formats", ExportFormat)
        options = self._call_collecting("zoo_register_options", PluginOption)
        owners: dict[tuple[type, str], Any] = {}
        for index, record in enumerate(self.records):
            if record.status != OK:
                continue
            name = record.name
            own = [tuple(kind.get(name, ())) for kind in (backbones, tasks, weights, formats)]
            items = [item for each in own for item in each]
            try:
                if name not in BUILTIN:
                    check_targets(name, record.module, items)
                claim(name, items, owners)
            except BrokenPlugin as error:
                self._drop(name, error)
                continue
            owned = [*own, tuple(options.get(name, ()))]
            collected: dict[str, Any] = dict(zip(COLLECTED, owned, strict=True))
            self.records[index] = replace(record, **collected)

    def _call_collecting(self, hook: str, *kinds: type[Record]) -> dict[str, list[Any]]:
        """Call a collecting hook, and return the records of each plugin."""
        working = [record for record in self.records if record.status == OK]
        origins = {record.name: record.origin for record in working}
        results, outcomes = self.manager.call(hook, Collection(kinds, origins))
        for outcome in outcomes:
            index = self._index(outcome.plugin)
            if index is not None:
                record = self.records[index]
                self.records[index] = replace(record, seconds=record.seconds + outcome.seconds)
            if outcome.error is not None:
                self._drop(outcome.plugin, outcome.error, hook)
        return by_owner(results)

    def _index(self, name: str) -> int | None:
        """Return the index of a plugin's record; None where its status is not `ok`."""
        for index, record in enumerate(self.records):
            if record.name == name and record.status == OK:
                return index
        return None

    def _drop(self, name: str, error: BaseException, hook: str | None = None) -> None:
        """Unregister a plugin with all of its hooks, and record the failure."""
        if self.manager.has_plugin(name):
            self.manager.unregister(name=name)
        self.fail(name, error, hook)

    def fail(self, name: str, error: BaseException, hook: str | None = None) -> None:
        """Record the failure of a loaded plugin, in one of its hooks if given.

        Raises:
            BrokenPlugin: the switches are strict.
        """
        index = self._index(name)
        if index is not None:
            self.records[index] = self._failed(self.records[index], error, hook)

    def implements(self, hook: str) -> bool:
        """Whether any plugin implements a hook."""
        return bool(getattr(self.manager.hook, hook).get_hookimpls())

    def call(
        self,
        hook: str,
        event: Event,
        results: Results,
        options: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> tuple[Any, list[Outcome]]:
        """Call an observing hook; return pluggy's result, and each implementation's outcome.

        Args:
            hook: name of the hook.
            event: of the training.
            results: validates the result of each implementation.
            options: of each plugin by name; each plugin receives its own; None for none.
        """
        return self.manager.call(hook, results, event=event, options=Options(options or {}))

    def notify(self, hook: str, event: Event) -> list[Outcome]:
        """Call an observing hook, and return the outcome of each implementation."""
        return self.call(hook, event, Results())[1]

    def warn(self, sentence: str) -> None:
        """Report a problem of a plugin."""
        self._warn(sentence)
