"""Parameter counts and head widths, as measured by `zoo.builtin.measure`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from zoo.spec import Head


def read_measured(source: str) -> Mapping[str, Mapping[str, Any]]:
    """Return `params` and `in_features`, a width per head, by name of the backbone."""
    path = Path(__file__).with_name(f"measured_{source}.json")
    measured: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return measured


def with_widths(heads: Sequence[Head], measured: Mapping[str, Any]) -> tuple[Head, ...]:
    """Return heads with their measured input widths.

    Unmeasured heads are returned unchanged, and so are those of a library version whose number of
    heads differs.
    """
    widths = measured.get("in_features", ())
    if len(widths) != len(heads):
        return tuple(heads)
    return tuple(
        replace(head, in_features=width) for head, width in zip(heads, widths, strict=True)
    )
