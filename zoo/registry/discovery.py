"""Find the available plugins: built-in ones, entry points, files; and the switches of each."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple

from zoo import __version__
from zoo.errors import BrokenPlugin, UsageError, did_you_mean

GROUP = "zoo"
BUILTIN = {
    "torchvision": "zoo.builtin.torchvision",
    "timm": "zoo.builtin.timm",
    "tasks": "zoo.builtin.tasks",
    "report": "zoo.builtin.report",
    "formats": "zoo.builtin.formats",
}
NO_VERSION = "-"
# The distribution of an object that a process or a test registers.
GIVEN = "given"
UNKNOWN = {"Name": "unknown", "Version": "unknown"}


class Plugin(NamedTuple):
    """An available plugin, before it is imported.

    Args:
        name: the source in its backbones' ids.
        module: the module that implements the hooks, or `module:object`.
        distribution: the installed package; `file` or `given` without one.
        version: of the package.
        file: the python file of `--plugin`.
        given: the object that implements the hooks, if not a module to import.
        requires: every `Requires-Dist` of the package.
    """

    name: str
    module: str
    distribution: str
    version: str
    file: Path | None = None
    given: object = None
    requires: tuple[str, ...] = ()

    @property
    def packaged(self) -> bool:
        """Whether it is part of an installed package."""
        return self.version != NO_VERSION

    def load(self) -> Any:
        """Import and return the object that implements the hooks.

        Raises:
            BrokenPlugin: the module does not have the object of the entry point.
        """
        if self.given is not None:
            return self.given
        if self.file is not None:
            from zoo.registry.plugin_file import import_file

            return import_file(self.file)
        module, _, path = self.module.partition(":")
        loaded: Any = import_module(module)
        for name in path.split(".") if path else ():
            if not hasattr(loaded, name):
                problem = f"has the entry point {self.module!r}, and {module} has no {path}"
                raise BrokenPlugin(f"plugin {self.name!r} {problem}")
            loaded = getattr(loaded, name)
        return loaded


def _is_set(variable: str) -> bool:
    return os.environ.get(variable, "") not in ("", "0")


class Switches(NamedTuple):
    """Which plugins to load; read before any is imported.

    Args:
        only: names of installed plugins to load in addition to the built-in ones; None for all.
        without: names to exclude, built-in ones included.
        dropped: names that the environment excludes, built-in ones included.
        strict: raise at the first plugin that fails.
        trace: print each call of a hook on stderr.
    """

    only: tuple[str, ...] | None = None
    without: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    strict: bool = False
    trace: bool = False

    @classmethod
    def from_environment(cls, without: Sequence[str] = ()) -> Switches:
        """Read `ZOO_PLUGINS`, `ZOO_STRICT` and `ZOO_TRACE_HOOKS`.

        `ZOO_PLUGINS` names the plugins to load (unset: all, empty: none), or, prefixed by a minus,
        those to exclude.
        """
        value = os.environ.get("ZOO_PLUGINS")
        names = [name.strip() for name in (value or "").split(",") if name.strip()]
        dropped = tuple(name[1:].strip() for name in names if name.startswith("-"))
        only = tuple(name for name in names if not name.startswith("-"))
        every = value is None or (dropped and not only)
        strict, trace = _is_set("ZOO_STRICT"), _is_set("ZOO_TRACE_HOOKS")
        return cls(None if every else only, tuple(without), dropped, strict, trace)

    def check(self, known: Sequence[str]) -> None:
        """Refuse unknown plugin names.

        Raises:
            UsageError: names the nearest plugin.
        """
        environment = (*(self.only or ()), *self.dropped)
        for switch, names in (("--no-plugin", self.without), ("ZOO_PLUGINS", environment)):
            for name in names:
                if name not in known:
                    hint = did_you_mean(name, known, f"installed: {', '.join(known)}")
                    raise UsageError(f"{switch}: no plugin is named {name!r}", hint)

    def off(self, plugin: Plugin) -> bool:
        """Whether this plugin is switched off; `only` applies to installed plugins."""
        if plugin.name in self.without or plugin.name in self.dropped:
            return True
        if self.only is None or not plugin.packaged:
            return False
        return plugin.name not in BUILTIN and plugin.name not in self.only


def builtin_plugins() -> list[Plugin]:
    """Return the built-in plugins, in loading order."""
    return [Plugin(name, module, "zoo-registry", __version__) for name, module in BUILTIN.items()]


def discover() -> list[Plugin]:
    """Return all built-in and installed plugins, in loading order."""
    installed = []
    for point in entry_points(group=GROUP):
        # Read once: each attribute of a distribution parses its metadata again.
        metadata = point.dist.metadata if point.dist else None
        package = UNKNOWN if metadata is None else metadata
        requires = tuple((metadata and metadata.get_all("Requires-Dist")) or ())
        value = point.value.partition("[")[0].strip()  # without extras
        name, version = package["Name"], package["Version"]
        installed.append(Plugin(point.name, value, name, version, requires=requires))
    installed.sort(key=lambda plugin: (plugin.name, plugin.distribution))
    return builtin_plugins() + installed


def file_plugins(files: Sequence[Path]) -> list[Plugin]:
    """Return the plugins in python files, without importing them.

    Raises:
        UsageError: a file does not exist, or cannot be imported under its stem.
    """
    if not files:
        return []
    from zoo.registry.plugin_file import check_file

    return [Plugin(check_file(file), file.stem, "file", NO_VERSION, file) for file in files]
