"""What `zoo.builtin.measure` measured of networks, for adapters to state."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo.spec import Head


def read_measured(source: str) -> Mapping[str, Mapping[str, Any]]:
    """Return `params` and `in_features`, a width for each head, by name of the backbone."""
    path = Path(__file__).with_name(f"measured_{source}.json")
    measured: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return measured


def with_widths(heads: Sequence[Head], measured: Mapping[str, Any]) -> tuple[Head, ...]:
    """Return heads with the widths that were measured.

    They stay as they are where none were, or where another version of the library, which has
    other heads, was measured.
    """
    widths = measured.get("in_features", ())
    if len(widths) != len(heads):
        return tuple(heads)
    return tuple(
        replace(head, in_features=width) for head, width in zip(heads, widths, strict=True)
    )
