"""Pytest fixtures for plugin tests, registered by the `pytest11` entry point.

Every run of pytest imports this module, so it imports zoo only inside of functions.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from zoo.registry.discovery import Plugin
    from zoo.registry.plugin_scope import Scope
    from zoo.registry.plugins import PluginRecord
    from zoo.registry.registry import Registry
    from zoo.spec import Backbone

SWITCHES = ("ZOO_PLUGINS", "ZOO_STRICT", "ZOO_TRACE_HOOKS")


def reset_caches() -> None:
    """Clear the caches of this process.

    These are registries, what is registered and selected at run time, registry files, plugin files
    of `--plugin`, and license notices already printed. Modules of installed plugins stay imported.
    """
    import sys

    from zoo.registry import config, plugin_file, plugin_scope

    scope = plugin_scope.current()
    scope.selection = plugin_scope.Selection()
    scope.registered.clear()
    scope.registries.clear()
    config.load_config.cache_clear()
    plugin_file.forget_files()
    # Importing it here would import torch; if not imported, no notice was printed.
    if notices := sys.modules.get("zoo.models.license_notice"):
        notices.reset_notices()


class IsolatedZoo:
    """A registry with the built-in tasks and the plugins that a test registers.

    Args:
        scope: the plugin scope of the test.
        plugins: loaded by the scope, in this order.
        cache: cache folder of the test.
        config: configuration folder of the test, which may contain a `registry.toml`.
    """

    def __init__(self, scope: Scope, plugins: list[Plugin], cache: Path, config: Path) -> None:
        self._scope = scope
        self._plugins = plugins
        self.cache = cache
        self.config = config

    def _add(self, *plugins: Plugin) -> None:
        self._plugins.extend(plugins)
        # Cached registries do not contain the new plugins.
        self._scope.registries.clear()

    def register(self, plugin: object, name: str | None = None) -> PluginRecord:
        """Register a plugin with the checks of an installed one.

        Families are enumerated in a subprocess, so their functions must be importable there.

        Args:
            plugin: a module, its name (`"leafnet.plugin"`), or any object whose methods are hooks.
            name: the source in its backbones' ids; by default the top-level package.

        Returns:
            The record of the plugin: `status` is `ok`, or `error` contains the reason.

        Raises:
            TypeError: an object that is not a module needs a name.
            BrokenPlugin: registration failed, with `ZOO_STRICT=1`.
        """
        from zoo.registry.discovery import GIVEN, NO_VERSION, Plugin

        given = None if isinstance(plugin, str) else plugin
        if isinstance(plugin, str):
            module = plugin
        elif isinstance(plugin, ModuleType):
            module = plugin.__name__
        elif name is None:
            raise TypeError(f"register({type(plugin).__name__}) needs a name")
        else:
            module = f"{type(plugin).__module__}:{type(plugin).__qualname__}"
        name = name or module.partition(":")[0].partition(".")[0]
        self._add(Plugin(name, module, GIVEN, NO_VERSION, given=given))
        return self.records[-1]

    def register_builtins(self, *names: str) -> None:
        """Register the built-in plugins: all, or those named, such as `torchvision`.

        Raises:
            UsageError: there is no built-in plugin of that name.
        """
        from zoo.errors import UsageError
        from zoo.registry.discovery import BUILTIN, builtin_plugins

        if unknown := [name for name in names if name not in BUILTIN]:
            raise UsageError(f"{unknown[0]!r} is not built in", f"one of {', '.join(BUILTIN)}")
        self._add(*(item for item in builtin_plugins() if not names or item.name in names))

    @property
    def registry(self) -> Registry:
        """The registry that `zoo.get`, `zoo.finetune` and the command line use in the test."""
        from zoo.registry.registry import load_registry

        return load_registry()

    @property
    def records(self) -> list[PluginRecord]:
        """The records of all plugins, in the order of registration."""
        return self.registry.host.records

    def get(self, name: str) -> Backbone:
        """Return a backbone by id, bare name or alias, as `zoo.get` does."""
        return self.registry.get(name)


@pytest.fixture
def zoo_isolated(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[IsolatedZoo]:
    """Provide a registry without installed plugins, with an empty cache and configuration.

    During the test, only the built-in tasks are loaded; `zoo.get`, `zoo.list_backbones`,
    `zoo.finetune` and the command line use what the test registers:

        def test_it_registers(zoo_isolated):
            assert zoo_isolated.register("leafnet.plugin", "leafnet").status == "ok"
            assert zoo.get("leafnet").heads[0].path == "classifier[6]"
    """
    from zoo.registry.discovery import builtin_plugins
    from zoo.registry.plugin_scope import Scope, in_force

    folder = tmp_path_factory.mktemp("zoo")
    cache, config = folder / "cache", folder / "config"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(config))
    monkeypatch.setenv("XDG_DATA_HOME", str(folder / "data"))
    for variable in SWITCHES:
        monkeypatch.delenv(variable, raising=False)
    plugins: list[Plugin] = [item for item in builtin_plugins() if item.name == "tasks"]
    with in_force(Scope(lambda: plugins)) as scope:
        yield IsolatedZoo(scope, plugins, cache / "zoo", config / "zoo")
