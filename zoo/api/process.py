"""Plugins, registry files and backbones of a process, without packages and flags."""

from __future__ import annotations

from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from zoo.options.arguments import names_arguments
from zoo.registry.plugins import PluginRecord
from zoo.registry.registry import load_registry
from zoo.spec import Backbone, Task

if TYPE_CHECKING:
    from zoo.options.given import FilePath

Record = TypeVar("Record", Backbone, Task)


@names_arguments
def configure(
    *,
    plugins: FilePath | Iterable[FilePath] = (),
    without: str | Iterable[str] = (),
    registry: FilePath | None = None,
) -> None:
    """Select plugins and a registry file for this process, as `zoo` does by its flags.

    Each call replaces the selection of the one before; without arguments, it is that of a new
    process. Backbones that are registered stay.

    Args:
        plugins: python files of plugins, or one, as `--plugin`.
        without: names of plugins to exclude, or one, as `--no-plugin`.
        registry: a `registry.toml` that overrides the user's, as `--registry`.

    Raises:
        UsageError: no plugin has a name, or a file cannot be a plugin.
        RegistryError: the registry file is invalid.
    """
    from zoo.registry.plugin_scope import Selection
    from zoo.registry.run_time import select

    file = None if registry is None else Path(registry).absolute()
    several = [plugins] if isinstance(plugins, (str, PathLike)) else plugins
    files = tuple(Path(each).absolute() for each in several)
    names = (without,) if isinstance(without, str) else tuple(without)
    select(Selection(names, file, files))


@names_arguments
def register(item: Record, source: str = "local") -> Record:
    """Register a backbone or a task for this process, such as one of a notebook.

    A backbone of the same name and source is replaced.

    Args:
        item: the backbone or task. Its code is named as in a plugin; that of a notebook or script
            is in `__main__`: `builder="__main__:build"`.
        source: the first half of its id.

    Returns:
        The item as registered, with its id.

    Raises:
        UsageError: an installed plugin has the name of the source.
        BrokenPlugin: it names code that does not exist.
    """
    from zoo.registry.run_time import register as register_item

    register_item(item, source)
    registry = load_registry()
    if isinstance(item, Backbone):
        return registry.get(f"{source}/{item.name}")
    return registry.task(item.name)


@names_arguments
def register_plugin(plugin: object, name: str | None = None) -> PluginRecord:
    """Register a plugin for this process, such as an observer of trainings in a script.

    One of the same name is replaced.

    Args:
        plugin: an object whose methods are hooks, or a module whose functions are.
        name: the source in its backbones' ids; by default the name of the module or class.

    Returns:
        Its record, with the names of its hooks.

    Raises:
        UsageError: an installed plugin has the name.
        BrokenPlugin: it does not load, as `zoo plugins show` would report.
    """
    from zoo.registry.run_time import register_plugin as register_object

    if isinstance(plugin, ModuleType):
        module, default = plugin.__name__, plugin.__name__.partition(".")[0]
    else:
        module, default = type(plugin).__module__, type(plugin).__name__.lower()
    return register_object(plugin, module, name or default)


@names_arguments
def list_plugins() -> list[PluginRecord]:
    """Return the state of each plugin, in loading order; a failed one has its error and traceback.

    Reads the catalogues; a fault of one is recorded for its plugin.
    """
    registry = load_registry()
    registry.records()
    return list(registry.host.records)
