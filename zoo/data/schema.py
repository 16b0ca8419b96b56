"""The schema of a data set: what its targets are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

Self = TypeVar("Self", bound="Schema")


@dataclass(frozen=True)
class Schema:
    """What the targets of a data set are; a task that needs more extends it.

    Every field must survive JSON: text, numbers, booleans, and tuples of them.

    Args:
        classes: class names in the order of the network's outputs; empty where there are none.
    """

    classes: tuple[str, ...] = ()

    @property
    def outputs(self) -> int:
        """How many outputs a head has."""
        return len(self.classes)

    def to_dict(self) -> dict[str, Any]:
        """Return the schema as plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls: type[Self], plain: Mapping[str, Any]) -> Self:
        """Read back what `to_dict` gave, also after a trip through JSON.

        Raises:
            TypeError, ValueError: it is no such schema.
        """
        return cls(**{name: _tuples(value) for name, value in plain.items()})


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value
