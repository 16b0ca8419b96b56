"""The schema of a data set: what its targets are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

Self = TypeVar("Self", bound="Schema")


@dataclass(frozen=True)
class Schema:
    """The targets of a data set; a task that needs more fields extends it.

    Fields must round-trip through JSON: text, numbers, booleans, and tuples of them.

    Args:
        classes: class names in the order of the network's outputs; empty where there are none.
    """

    classes: tuple[str, ...] = ()

    @property
    def outputs(self) -> int:
        """Number of outputs of a head."""
        return len(self.classes)

    @property
    def output_names(self) -> tuple[str, ...]:
        """Names of the outputs, by which rows of trained heads are matched; empty for none."""
        return self.classes

    def to_dict(self) -> dict[str, Any]:
        """Return the schema as JSON-compatible data."""
        return asdict(self)

    @classmethod
    def from_dict(cls: type[Self], plain: Mapping[str, Any]) -> Self:
        """Restore a schema from `to_dict`, also after a round trip through JSON.

        Raises:
            TypeError, ValueError: the data is not of this schema.
        """
        return cls(**{name: _tuples(value) for name, value in plain.items()})


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, (list, tuple)) else value
