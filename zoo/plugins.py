"""Loading plugins one at a time, and a record of what happened to each.

Built-in adapters come first and through the same door. Whatever a plugin does wrong (fails to
import, exits, misspells a hook, returns junk, takes a name that is taken) ends in its own record
with a status and one sentence; the others go on. `ZOO_STRICT=1` raises instead.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, field, replace
from functools import partial
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from zoo import __version__, hookspecs
from zoo.errors import BrokenPlugin, UsageError, did_you_mean, nearest, one_line
from zoo.spec import Backbone, Family

GROUP = "zoo"
BUILTIN = {"torchvision": "zoo.builtin.torchvision", "timm": "zoo.builtin.timm"}
OK, OFF, FAILED, CONFLICT = "ok", "off", "failed", "conflict"


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
        seconds: wall time that importing it and calling its hooks took.
        found: what it registered.
        hooks: names of the hooks it implements, as far as it could be imported.
    """

    name: str
    module: str
    distribution: str
    version: str
    status: str = OK
    error: str | None = None
    trace: str | None = None
    seconds: float = 0.0
    found: tuple[Backbone | Family, ...] = field(default=(), repr=False)
    hooks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Switches:
    """Which plugins may load; read before anything loads.

    Args:
        only: names of installed plugins that may load; None for all. Built-ins always may.
        without: names, built-ins included, that may not.
        dropped: names, built-ins included, that the environment leaves out.
        strict: raise at the first plugin that fails.
    """

    only: tuple[str, ...] | None = None
    without: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    strict: bool = False

    @classmethod
    def from_environment(cls, without: Sequence[str] = ()) -> Switches:
        """Read `ZOO_PLUGINS` and `ZOO_STRICT`.

        `ZOO_PLUGINS` names what may load (unset: all, empty: none), or with a minus before each
        what may not.
        """
        said = os.environ.get("ZOO_PLUGINS")
        named = [name.strip() for name in (said or "").split(",") if name.strip()]
        dropped = tuple(name[1:].strip() for name in named if name.startswith("-"))
        only = tuple(name for name in named if not name.startswith("-"))
        anything = said is None or (dropped and not only)
        strict = os.environ.get("ZOO_STRICT", "") not in ("", "0")
        return cls(None if anything else only, tuple(without), dropped, strict)

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

    def off(self, name: str) -> bool:
        """Whether this plugin is switched off."""
        if name in self.without or name in self.dropped:
            return True
        return self.only is not None and name not in BUILTIN and name not in self.only


def _discover() -> list[PluginRecord]:
    """Return a record for each plugin there is, in loading order; nothing is imported."""
    records = [
        PluginRecord(name, module, "zoo-registry", __version__) for name, module in BUILTIN.items()
    ]

    def order(point: EntryPoint) -> tuple[str, str]:
        return point.name, point.dist.name if point.dist else ""

    seen: dict[str, PluginRecord] = {record.name: record for record in records}
    for point in sorted(entry_points(group=GROUP), key=order):
        distribution = point.dist.name if point.dist else "unknown"
        version = point.dist.version if point.dist else "unknown"
        record = PluginRecord(point.name, point.value, distribution, version)
        holder = seen.get(point.name)
        if holder and (holder.distribution, holder.module) == (distribution, point.value):
            continue  # an editable install can be listed twice
        if holder:
            error = f"the name {point.name!r} is already taken by {holder.distribution}"
            record = replace(record, status=CONFLICT, error=error)
        seen.setdefault(point.name, record)
        records.append(record)
    return records


def _check_hooks(manager: pluggy.PluginManager, name: str, module: Any) -> None:
    """Refuse a hook that zoo does not have; pluggy alone would be silent about it."""
    known = [hook for hook in vars(hookspecs) if hook.startswith("zoo_")]
    for caller in manager.get_hookcallers(module) or ():
        if caller.spec is None:
            near = nearest(caller.name, known)
            also = f"; did you mean {near[0]}?" if near else ""
            raise BrokenPlugin(f"plugin {name!r} implements the unknown hook {caller.name}{also}")


def _check_found(name: str, found: Iterable[object]) -> tuple[Backbone | Family, ...]:
    """Refuse junk, and two backbones of one name."""
    checked: list[Backbone | Family] = []
    names: set[str] = set()
    for item in found:
        if not isinstance(item, (Backbone, Family)):
            what = f"{type(item).__name__} {item!r}"[:80]
            raise BrokenPlugin(f"plugin {name!r} registered {what}, not a Backbone or Family")
        if isinstance(item, Backbone):
            if item.name in names:
                raise BrokenPlugin(f"plugin {name!r} registers {item.name!r} twice")
            names.add(item.name)
        checked.append(item)
    return tuple(checked)


class PluginHost:
    """The plugins of this process.

    Args:
        switches: which may load.
        warn: called with one sentence for each plugin that does not work.

    Raises:
        UsageError: a switch names a plugin that is not there.
        BrokenPlugin: a plugin failed and the switches are strict.
    """

    def __init__(self, switches: Switches, warn: Callable[[str], None]) -> None:
        self.switches = switches
        self._warn = warn
        self.manager = pluggy.PluginManager("zoo")
        self.manager.add_hookspecs(hookspecs)
        records = _discover()
        switches.check([record.name for record in records])
        self.records: list[PluginRecord] = []
        for record in records:
            if record.status == CONFLICT:
                self._report(record)
            elif switches.off(record.name):
                record = replace(record, status=OFF)
            else:
                record = self._load(record)
            self.records.append(record)

    def _report(self, record: PluginRecord) -> None:
        message = f"plugin {record.name!r} ({record.distribution} {record.version}) is left out"
        if self.switches.strict:
            raise BrokenPlugin(f"{message}: {record.error}")
        self._warn(f"{message}: {record.error}")

    def _load(self, record: PluginRecord) -> PluginRecord:
        began = time.perf_counter()
        module = None
        try:
            # What a plugin prints must not stand in front of what a command prints as JSON.
            with redirect_stdout(sys.stderr):
                module = import_module(record.module.partition(":")[0])
                self.manager.register(module, record.name)
                callers = self.manager.get_hookcallers(module) or ()
                record = replace(record, hooks=tuple(caller.name for caller in callers))
                _check_hooks(self.manager, record.name, module)
                found = self._collect(record.name, module)
        except (Exception, SystemExit) as error:
            if module is not None and self.manager.is_registered(module):
                self.manager.unregister(module)
            record = self._failed(record, error)
        else:
            record = replace(record, found=found)
        return replace(record, seconds=time.perf_counter() - began)

    def _failed(self, record: PluginRecord, error: BaseException) -> PluginRecord:
        said = error.message if isinstance(error, BrokenPlugin) else one_line(error)
        trace = "".join(traceback.format_exception(error))
        record = replace(record, status=FAILED, error=said, trace=trace, found=())
        self._report(record)
        return record

    def _collect(self, name: str, module: Any) -> tuple[Backbone | Family, ...]:
        for implementation in self.manager.hook.zoo_register_backbones.get_hookimpls():
            if implementation.plugin is module:
                found: Any = implementation.function()
                if found is None or isinstance(found, (str, bytes, Backbone, Family)):
                    raise BrokenPlugin(f"plugin {name!r} returned {found!r}, not an iterable")
                return _check_found(name, found)
        return ()

    def fail(self, name: str, error: BaseException) -> None:
        """Record that a plugin turned out not to work after it was loaded.

        Raises:
            BrokenPlugin: the switches are strict.
        """
        for position, record in enumerate(self.records):
            if record.name == name and record.status == OK:
                self.records[position] = self._failed(record, error)

    def observers(self, hook: str) -> list[tuple[str, Callable[[hookspecs.Event], Any]]]:
        """Return the plugins that implement an observing hook, each with what it is called by."""
        return [
            (implementation.plugin_name, partial(_call, implementation))
            for implementation in getattr(self.manager.hook, hook).get_hookimpls()
        ]

    def warn(self, sentence: str) -> None:
        """Say what is wrong with a plugin."""
        self._warn(sentence)


def _call(implementation: pluggy.HookImpl, event: hookspecs.Event) -> Any:
    """Call an observer; one that does not name the event does without."""
    # What a plugin prints must not stand in front of what a command prints as JSON.
    with redirect_stdout(sys.stderr):
        return implementation.function(*[event for _ in implementation.argnames])
