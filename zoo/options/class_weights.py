"""Class weights of a loss, by name or balanced."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zoo.errors import UsageError
from zoo.options.formatting import shortest

BALANCED = "balanced"
FORMS = "write balanced, or NAME=W,NAME=W with positive numbers"


@dataclass(frozen=True)
class ClassWeights:
    """The weight of each class in the loss.

    Args:
        weights: name and weight of each class that differs from 1; None for weights inversely
            proportional to the class frequencies of the training split.
    """

    weights: tuple[tuple[str, float], ...] | None = None

    def __str__(self) -> str:
        if self.weights is None:
            return BALANCED
        return ",".join(_quoted(f"{name}={shortest(weight)}") for name, weight in self.weights)

    @classmethod
    def read(cls, given: Any) -> ClassWeights:
        """Read class weights.

        Args:
            given: `balanced`; `NAME=W,NAME=W`, in which an item with a comma in its name is quoted
                as in CSV; or a mapping from names to weights.

        Raises:
            UsageError: they are malformed.
        """
        if isinstance(given, cls):
            return given
        if isinstance(given, Mapping):
            pairs = [(str(name), weight) for name, weight in given.items()]
        elif not isinstance(given, str):
            raise UsageError(f"--class-weights is a {type(given).__name__}", FORMS)
        elif given == BALANCED:
            return cls()
        else:
            pairs = [_split(item) for item in _items(given)]
        return cls(tuple((name, _weight(name, weight)) for name, weight in _unique(pairs)))


def _items(text: str) -> list[str]:
    import csv  # here, because help does not need it

    return next(csv.reader([text], skipinitialspace=True), [])


def _quoted(item: str) -> str:
    """Return an item as CSV quotes it where its name has a comma or a quote."""
    return f'"{item.replace(chr(34), chr(34) * 2)}"' if set(item) & {",", '"'} else item


def _split(item: str) -> tuple[str, str]:
    name, equals, weight = item.rpartition("=")
    if not equals or not name:
        raise UsageError(f"--class-weights {item!r} is not NAME=W", FORMS)
    return name, weight


def _unique(pairs: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
    names = [name for name, _ in pairs]
    if not names:
        raise UsageError("--class-weights is empty", FORMS)
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--class-weights names {name!r} twice", FORMS)
    return pairs


def _weight(name: str, given: Any) -> float:
    try:
        weight = float(given)
    except (TypeError, ValueError):
        weight = math.nan
    if not 0 < weight < math.inf:
        raise UsageError(f"--class-weights gives {name!r} the weight {given!r}", FORMS)
    return weight
