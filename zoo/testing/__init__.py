"""The promises that zoo makes of every backbone and every task, as tests for one's own.

    import zoo.testing

    class TestLeafnet(zoo.testing.BackboneContract):
        backbone = "leafnet"

    class TestLeafCounting(zoo.testing.TaskContract):
        task = "leaf-counting"

`zoo plugins check NAME` holds the same suites against all backbones and tasks of a plugin.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.testing.contract import BackboneContract, TaskContract

__all__ = ["BackboneContract", "TaskContract"]


def __getattr__(name: str) -> Any:
    """Import the suite when it is first asked for; it needs torch."""
    if name in __all__:
        from zoo.testing import contract

        return getattr(contract, name)
    raise AttributeError(f"module 'zoo.testing' has no attribute {name!r}")
