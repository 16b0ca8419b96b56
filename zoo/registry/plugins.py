"""Loading plugins one at a time, and a record of what happened to each.

Built-in plugins come first and through the same hooks. Whatever a plugin does wrong (fails to
import, exits, misspells a hook, returns junk, takes a name that is taken) ends in its own record
with a status and one sentence; the others go on. `ZOO_STRICT=1` raises instead.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zoo import __version__, hookspecs
from zoo.errors import BrokenPlugin, UsageError, did_you_mean, nearest, one_line
from zoo.registry.collection import Collection, Record, by_owner
from zoo.registry.hook_manager import HookManager, Outcome
from zoo.spec import Backbone, Family, Task

if TYPE_CHECKING:
    from zoo.events import Event

GROUP = "zoo"
BUILTIN = {
    "torchvision": "zoo.builtin.torchvision",
    "timm": "zoo.builtin.timm",
    "tasks": "zoo.builtin.tasks",
}
OK, OFF, FAILED, CONFLICT = "ok", "off", "failed", "conflict"
NO_VERSION = "-"


class Plugin(NamedTuple):
    """A plugin that there is, before anything of it is imported.

    Args:
        name: the source in its backbones' ids.
        module: the module that implements the hooks.
        distribution: the installed package that brought it; `file` or `given` where none did.
        version: that package's version.
        file: the python file that `--plugin` named.
        given: what implements the hooks, where there is nothing to import.
    """

    name: str
    module: str
    distribution: str
    version: str
    file: Path | None = None
    given: object = None

    @property
    def packaged(self) -> bool:
        """Whether a package brought it, rather than somebody who named it by itself."""
        return self.version != NO_VERSION

    def load(self) -> Any:
        """Import what implements the hooks."""
        if self.given is not None:
            return self.given
        if self.file is not None:
            from zoo.registry.plugin_file import import_file

            return import_file(self.file)
        return import_module(self.module.partition(":")[0])


@dataclass(frozen=True)
class PluginRecord:
    """What is known about one plugin.

    Args:
        name: the entry point's name, the source in its backbones' ids.
        module: the module that the entry point names.
        distribution: the installed package that brought it.
        version: that package's version.
        status: `ok`, `off` (switched off), `failed` or `conflict`.
        error: one sentence where it is not `ok` nor `off`.
        trace: the traceback behind the error, where there is one.
        seconds: wall time that importing it and calling its collecting hooks took.
        backbones: what it registered of them.
        tasks: those that it registered.
        hooks: names of the hooks it implements, as far as it could be imported.
        file: the python file that `--plugin` named; None for an installed one.
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
    hooks: tuple[str, ...] = ()
    file: Path | None = None

    @property
    def home(self) -> str:
        """What brought it, in words: a package with its version, or a file."""
        if self.file is not None:
            return f"file {self.file}"
        return " ".join(said for said in (self.distribution, self.version) if said != NO_VERSION)

    @property
    def origin(self) -> str:
        """What a record of it came from, in words."""
        return f"plugin {self.name} ({self.home})"


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "") not in ("", "0")


@dataclass(frozen=True)
class Switches:
    """Which plugins may load; read before anything loads.

    Args:
        only: names of installed plugins that may load; None for all. Built-ins always may.
        without: names, built-ins included, that may not.
        dropped: names, built-ins included, that the environment leaves out.
        strict: raise at the first plugin that fails.
        trace: say each call of a hook on stderr.
    """

    only: tuple[str, ...] | None = None
    without: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    strict: bool = False
    trace: bool = False

    @classmethod
    def from_environment(cls, without: Sequence[str] = ()) -> Switches:
        """Read `ZOO_PLUGINS`, `ZOO_STRICT` and `ZOO_TRACE_HOOKS`.

        `ZOO_PLUGINS` names what may load (unset: all, empty: none), or with a minus before each
        what may not.
        """
        said = os.environ.get("ZOO_PLUGINS")
        named = [name.strip() for name in (said or "").split(",") if name.strip()]
        dropped = tuple(name[1:].strip() for name in named if name.startswith("-"))
        only = tuple(name for name in named if not name.startswith("-"))
        anything = said is None or (dropped and not only)
        strict, trace = _is_set("ZOO_STRICT"), _is_set("ZOO_TRACE_HOOKS")
        return cls(None if anything else only, tuple(without), dropped, strict, trace)

    def check(self, known: Sequence[str]) -> None:
        """Refuse a name that no plugin has.

        Raises:
            UsageError: names the nearest plugin.
        """
        named = (*(self.only or ()), *self.dropped)
        for where, names in (("--no-plugin", self.without), ("ZOO_PLUGINS", named)):
            for name in names:
                if name not in known:
                    hint = did_you_mean(name, known, f"installed: {', '.join(known)}")
                    raise UsageError(f"{where}: no plugin is named {name!r}", hint)

    def off(self, plugin: Plugin) -> bool:
        """Whether this plugin is switched off; one that was named by itself is not by others."""
        if plugin.name in self.without or plugin.name in self.dropped:
            return True
        if self.only is None or not plugin.packaged:
            return False
        return plugin.name not in BUILTIN and plugin.name not in self.only


def builtin_plugins() -> list[Plugin]:
    """Return those that come with zoo, in loading order."""
    return [Plugin(name, module, "zoo-registry", __version__) for name, module in BUILTIN.items()]


def discover() -> list[Plugin]:
    """Return each plugin there is, built-in or installed, in loading order."""

    def order(point: EntryPoint) -> tuple[str, str]:
        return point.name, point.dist.name if point.dist else ""

    found = builtin_plugins()
    for point in sorted(entry_points(group=GROUP), key=order):
        distribution = point.dist.name if point.dist else "unknown"
        version = point.dist.version if point.dist else "unknown"
        found.append(Plugin(point.name, point.value, distribution, version))
    return found


def file_plugins(files: Sequence[Path]) -> list[Plugin]:
    """Return the plugins in python files, none of them imported.

    Raises:
        UsageError: a file is not there, or cannot be imported under its own name.
    """
    if not files:
        return []
    from zoo.registry.plugin_file import check_file

    return [Plugin(check_file(file), file.stem, "file", NO_VERSION, file) for file in files]


def _settle(plugins: Iterable[Plugin]) -> Iterator[tuple[Plugin, PluginRecord]]:
    """Yield each plugin with its record: the first of a name has it, another is in conflict."""
    seen: dict[str, PluginRecord] = {}
    for plugin in plugins:
        name, module, distribution, version, file, _ = plugin
        record = PluginRecord(name, module, distribution, version, file=file)
        holder = seen.setdefault(name, record)
        if holder is not record:
            if plugin.packaged and (holder.distribution, holder.module) == (distribution, module):
                continue  # an editable install can be listed twice
            taken_by = holder.home if holder.file else holder.distribution
            error = f"the name {name!r} is already taken by {taken_by}"
            record = replace(record, status=CONFLICT, error=error)
        yield plugin, record


def _check_hooks(manager: HookManager, name: str, module: Any) -> None:
    """Refuse a hook that zoo does not have, but for one marked `optionalhook`.

    As pluggy's `check_pending`, for one plugin, and with the nearest name.
    """
    known = [hook for hook in vars(hookspecs) if hook.startswith("zoo_")]
    for caller in manager.get_hookcallers(module) or ():
        own = [made for made in caller.get_hookimpls() if made.plugin is module]
        if caller.spec is None and not all(made.optionalhook for made in own):
            near = nearest(caller.name, known)
            also = f"; did you mean {near[0]}?" if near else ""
            raise BrokenPlugin(f"plugin {name!r} implements the unknown hook {caller.name}{also}")


class PluginHost:
    """The plugins of this process.

    Args:
        switches: which may load.
        warn: called with one sentence for each plugin that does not work.
        plugins: what there is to load, in this order; None for what is built in and installed.

    Raises:
        UsageError: a switch names a plugin that is not there.
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
        settled = list(_settle(discover() if plugins is None else plugins))
        switches.check(list(dict.fromkeys(record.name for _, record in settled)))
        self.records: list[PluginRecord] = []
        for plugin, record in settled:
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
        began = time.perf_counter()
        module = None
        try:
            # What a plugin prints must not stand in front of what a command prints as JSON.
            with redirect_stdout(sys.stderr):
                module = plugin.load()
                self.manager.register(module, record.name)
                callers = self.manager.get_hookcallers(module) or ()
                record = replace(record, hooks=tuple(caller.name for caller in callers))
                _check_hooks(self.manager, record.name, module)
        except (Exception, SystemExit) as error:
            if module is not None and self.manager.is_registered(module):
                self.manager.unregister(module)
            record = self._failed(record, error)
        return replace(record, seconds=time.perf_counter() - began)

    def _failed(self, record: PluginRecord, error: BaseException) -> PluginRecord:
        said = error.message if isinstance(error, BrokenPlugin) else one_line(error)
        named = f"plugin {record.name!r} "  # as it is already wherever this is said
        said = f"it {said.removeprefix(named)}" if said.startswith(named) else said
        trace = "".join(traceback.format_exception(error))
        record = replace(record, status=FAILED, error=said, trace=trace, backbones=(), tasks=())
        self._report(record)
        return record

    def _collect(self) -> None:
        """Call the collecting hooks, and note in each record what its plugin brings."""
        backbones = self._collected("zoo_register_backbones", Backbone, Family)
        tasks = self._collected("zoo_register_tasks", Task)
        owners: dict[str, Task] = {}
        for position, record in enumerate(self.records):
            own = tasks.get(record.name, ())
            if record.status != OK:
                continue
            if taken := next((owners[task.name] for task in own if task.name in owners), None):
                said = f"registers the task {taken.name!r}, which is that of {taken.origin}"
                self._drop(record.name, BrokenPlugin(f"plugin {record.name!r} {said}"))
                continue
            owners.update((task.name, task) for task in own)
            found = tuple(backbones.get(record.name, ()))
            self.records[position] = replace(record, backbones=found, tasks=tuple(own))

    def _collected(self, hook: str, *kinds: type[Record]) -> dict[str, list[Any]]:
        """Call a collecting hook, and return the records of each plugin."""
        working = [record for record in self.records if record.status == OK]
        origins = {record.name: record.origin for record in working}
        results, outcomes = self.manager.call(hook, Collection(kinds, origins))
        for outcome in outcomes:
            position = self._position(outcome.plugin)
            if position is not None:
                record = self.records[position]
                self.records[position] = replace(record, seconds=record.seconds + outcome.seconds)
            if outcome.error is not None:
                self._drop(outcome.plugin, outcome.error)
        return by_owner(results)

    def _position(self, name: str) -> int | None:
        """Return where the record of a plugin that works stands; None where it does not work."""
        for position, record in enumerate(self.records):
            if record.name == name and record.status == OK:
                return position
        return None

    def _drop(self, name: str, error: BaseException) -> None:
        """Leave a plugin out whole: none of its hooks is called from here on."""
        if self.manager.has_plugin(name):
            self.manager.unregister(name=name)
        self.fail(name, error)

    def fail(self, name: str, error: BaseException) -> None:
        """Record that a plugin turned out not to work after it was loaded.

        Raises:
            BrokenPlugin: the switches are strict.
        """
        position = self._position(name)
        if position is not None:
            self.records[position] = self._failed(self.records[position], error)

    def implements(self, hook: str) -> bool:
        """Whether any plugin implements a hook."""
        return bool(getattr(self.manager.hook, hook).get_hookimpls())

    def notify(self, hook: str, event: Event) -> list[Outcome]:
        """Call an observing hook, and return what each plugin's implementation did."""
        return self.manager.call(hook, event=event)[1]

    def warn(self, sentence: str) -> None:
        """Say what is wrong with a plugin."""
        self._warn(sentence)
