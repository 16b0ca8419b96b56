"""What a process registers and selects at run time, in place of packages and flags."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from zoo.errors import BrokenPlugin, UsageError
from zoo.hookspecs import hookimpl
from zoo.registry.discovery import GIVEN, NO_VERSION, Plugin
from zoo.registry.plugin_scope import Scope, Selection, current
from zoo.registry.plugins import CONFLICT, OK, PluginRecord
from zoo.registry.registry import load_registry
from zoo.spec import Backbone, Task, resolve_target


class RunTimePlugin:
    """The hooks of what a process registers under one name; the last of two equal names counts."""

    def __init__(self, items: tuple[Backbone | Task, ...]) -> None:
        self.items = {(type(item), item.name): item for item in items}

    @hookimpl
    def zoo_register_backbones(self) -> list[Backbone]:
        """Return the registered backbones."""
        return [item for item in self.items.values() if isinstance(item, Backbone)]

    @hookimpl
    def zoo_register_tasks(self) -> list[Task]:
        """Return the registered tasks."""
        return [item for item in self.items.values() if isinstance(item, Task)]


@contextmanager
def _restored_after_errors() -> Iterator[Scope]:
    """Give the active scope its selection and plugins back if the block raises."""
    scope = current()
    selection, registered = scope.selection, dict(scope.registered)
    scope.registries.clear()
    try:
        yield scope
    except BaseException:
        scope.selection, scope.registered = selection, registered
        scope.registries.clear()
        raise


def select(selection: Selection) -> None:
    """Select the plugins and the registry file of this process.

    Raises:
        ZooError: as `load_registry` does; the previous selection stays.
    """
    with _restored_after_errors() as scope:
        scope.selection = selection
        load_registry()


def register_plugin(plugin: object, module: str, name: str) -> PluginRecord:
    """Register an object whose methods, or a module whose functions, are hooks.

    Args:
        plugin: replaces one that was registered under the same name before.
        module: that defines it, for messages.
        name: the source in its backbones' ids.

    Raises:
        UsageError: an installed plugin has the name.
        BrokenPlugin: it does not load; nothing is registered.
    """
    with _restored_after_errors() as scope:
        scope.registered[name] = Plugin(name, module, GIVEN, NO_VERSION, given=plugin)
        records = [record for record in load_registry().host.records if record.name == name]
        record = next(each for each in records if each.distribution == GIVEN)
        if record.status == CONFLICT:
            raise UsageError(str(record.error), "choose another name")
        if record.status != OK:
            raise BrokenPlugin(f"plugin {name!r}: {record.error or record.status}")
        return record


def register(item: Backbone | Task, source: str) -> None:
    """Register a backbone or a task.

    Args:
        item: replaces one of the same name and source.
        source: the first half of its id.

    Raises:
        UsageError: an installed plugin has the name of the source, or it is neither.
        BrokenPlugin: it names code that does not exist; nothing is registered.
    """
    if not isinstance(item, (Backbone, Task)):
        message = f"a {type(item).__name__} cannot be registered"
        raise UsageError(message, "give a zoo.Backbone or a zoo.Task")
    target = item.builder if isinstance(item, Backbone) else item.target
    resolve_target(target, f"{item.name!r}")
    earlier = current().registered.get(source)
    given = earlier.given if earlier is not None else None
    items = given.items.values() if isinstance(given, RunTimePlugin) else ()
    register_plugin(RunTimePlugin((*items, item)), __name__, source)
