"""Conformance tests for the backbones and tasks of plugins.

    import zoo.testing

    class TestLeafnet(zoo.testing.BackboneContract):
        backbone = "leafnet"

    class TestLeafCounting(zoo.testing.TaskContract):
        task = "leaf-counting"

`zoo plugins check NAME` runs the same suites on all backbones and tasks of a plugin.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.testing.contract import BackboneContract, TaskContract

__all__ = ["BackboneContract", "TaskContract"]


def __getattr__(name: str) -> Any:
    """Import the suite on first access, because it imports torch."""
    if name in __all__:
        from zoo.testing import contract

        return getattr(contract, name)
    raise AttributeError(f"module 'zoo.testing' has no attribute {name!r}")
