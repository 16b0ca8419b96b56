"""Conformance tests for the backbones and tasks of plugins.

    import zoo.testing

    class TestLeafnet(zoo.testing.BackboneContract):
        backbone = "leafnet"

    class TestLeafCounting(zoo.testing.TaskContract):
        task = "leaf-counting"

`zoo plugins check NAME`, in Python `check_plugin`, runs the same suites on all backbones and tasks
of a plugin; `zoo plugins new`, in Python `new_plugin`, creates a package.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.testing.contract import BackboneContract, TaskContract
    from zoo.testing.plugin_check import check_plugin
    from zoo.testing.plugin_package import new_plugin

__all__ = ["BackboneContract", "TaskContract", "check_plugin", "new_plugin"]

_DEFINED_IN = {
    "check_plugin": "zoo.testing.plugin_check",
    "new_plugin": "zoo.testing.plugin_package",
}


def __getattr__(name: str) -> Any:
    """Import the suite on first access, because it imports torch."""
    if name in __all__:
        return getattr(import_module(_DEFINED_IN.get(name, "zoo.testing.contract")), name)
    raise AttributeError(f"module 'zoo.testing' has no attribute {name!r}")
