"""The promises that zoo makes of every backbone, as tests for one's own.

    import zoo.testing

    class TestLeafnet(zoo.testing.BackboneContract):
        backbone = "leafnet"

`zoo plugins check NAME` holds the same suite against all backbones of a plugin.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zoo.testing.contract import BackboneContract

__all__ = ["BackboneContract"]


def __getattr__(name: str) -> Any:
    """Import the suite when it is first asked for; it needs torch."""
    if name == "BackboneContract":
        from zoo.testing.contract import BackboneContract

        return BackboneContract
    raise AttributeError(f"module 'zoo.testing' has no attribute {name!r}")
