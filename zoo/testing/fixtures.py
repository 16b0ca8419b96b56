"""Fixtures for the tests of plugins; pytest finds them where zoo is installed.

This is imported by every run of pytest, so it imports nothing of zoo but what a test asks for.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from zoo.registry.plugin_scope import Scope
    from zoo.registry.plugins import Plugin, PluginRecord
    from zoo.registry.registry import Registry
    from zoo.spec import Backbone

SWITCHES = ("ZOO_PLUGINS", "ZOO_STRICT", "ZOO_TRACE_HOOKS")


def reset_caches() -> None:
    """Make this process load anew what zoo keeps for the whole process.

    That is: registries, registry files, the python files that `--plugin` named, and which notices
    of licences have been given. Modules of installed plugins stay imported.
    """
    import sys

    from zoo.registry import config, plugin_file, plugin_scope

    plugin_scope.current().registries.clear()
    config.load_config.cache_clear()
    plugin_file.forget_files()
    # It imports torch, so a process that has not imported it has given no notice.
    if notices := sys.modules.get("zoo.models.license_notice"):
        notices.forget_notices()


class IsolatedZoo:
    """A zoo in which there is what a test puts into it, and nothing that is installed.

    The built-in tasks are there, so that what a test registers can be trained.

    Args:
        scope: in force for as long as the test runs.
        plugins: what the scope loads, in this order.
        cache: the cache folder of this test.
        config: its configuration folder, where a `registry.toml` would be the user's.
    """

    def __init__(self, scope: Scope, plugins: list[Plugin], cache: Path, config: Path) -> None:
        self._scope = scope
        self._plugins = plugins
        self.cache = cache
        self.config = config

    def _add(self, *plugins: Plugin) -> None:
        self._plugins.extend(plugins)
        # What was loaded before knows nothing of them.
        self._scope.registries.clear()

    def register(self, plugin: object, name: str | None = None) -> PluginRecord:
        """Load a plugin as zoo loads an installed one, with the same checks.

        Where it brings a family, another process imports what enumerates it, so that has to stand
        in an installed module.

        Args:
            plugin: a module, its name (`"leafnet.plugin"`), or any object whose methods are hooks.
            name: the source in its backbones' ids; by default the module's first name.

        Returns:
            What happened to it: `status` is `ok`, or `error` says why not.

        Raises:
            TypeError: an object that is no module needs a name.
            BrokenPlugin: it failed, and the test has set `ZOO_STRICT=1`.
        """
        from zoo.registry.plugins import NO_VERSION, Plugin

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
        self._add(Plugin(name, module, "given", NO_VERSION, given=given))
        return self.records[-1]

    def register_builtins(self, *names: str) -> None:
        """Load the backbones that come with zoo: all, or those of `torchvision` or `timm`.

        Raises:
            UsageError: nothing of that name comes with zoo.
        """
        from zoo.errors import UsageError
        from zoo.registry.plugins import BUILTIN, builtin_plugins

        if unknown := [name for name in names if name not in BUILTIN]:
            raise UsageError(f"{unknown[0]!r} is not built in", f"one of {', '.join(BUILTIN)}")
        self._add(*(item for item in builtin_plugins() if not names or item.name in names))

    @property
    def registry(self) -> Registry:
        """The registry that `zoo.get`, `zoo.finetune` and the command line use meanwhile."""
        from zoo.registry.registry import load_registry

        return load_registry()

    @property
    def records(self) -> list[PluginRecord]:
        """What is known about each plugin, in the order of their registration."""
        return self.registry.host.records

    def get(self, name: str) -> Backbone:
        """Return the backbone of an id, a bare name or an alias, as `zoo.get` does."""
        return self.registry.get(name)


@pytest.fixture
def zoo_isolated(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Iterator[IsolatedZoo]:
    """Give a zoo without plugins, with a cache and a configuration of its own.

    While the test runs, no installed plugin is looked for, and of what is built in only the tasks
    are loaded, unless more is asked for; `zoo.get`, `zoo.list_backbones`, `zoo.finetune` and the
    rest see what the test registers:

        def test_it_registers(zoo_isolated):
            assert zoo_isolated.register("leafnet.plugin", "leafnet").status == "ok"
            assert zoo.get("leafnet").heads[0].path == "classifier[6]"
    """
    from zoo.registry.plugin_scope import Scope, in_force
    from zoo.registry.plugins import builtin_plugins

    folder = tmp_path_factory.mktemp("zoo")
    cache, config = folder / "cache", folder / "config"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(config))
    for variable in SWITCHES:
        monkeypatch.delenv(variable, raising=False)
    plugins: list[Plugin] = [item for item in builtin_plugins() if item.name == "tasks"]
    with in_force(Scope(lambda: plugins)) as scope:
        yield IsolatedZoo(scope, plugins, cache / "zoo", config / "zoo")
