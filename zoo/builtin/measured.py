"""Parameter counts and head widths, as measured by `zoo.builtin.measure`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from zoo.spec import Head


def measured_file(source: str) -> Path:
    """Return the path of a library's measurements: `versions`, and `backbones` by name."""
    return Path(__file__).with_name(f"measured_{source}.json")


def installed_version(source: str) -> str | None:
    """Return the version of a library without its local part, `+cpu`; None if not installed."""
    try:
        return version(source).partition("+")[0]
    except PackageNotFoundError:
        return None


def read_measured(source: str) -> Mapping[str, Mapping[str, Any]]:
    """Return `params` and `in_features`, a width per head, by name of the backbone.

    Empty if the installed version of the library was not measured: another version may build
    another network under the same name.
    """
    content = json.loads(measured_file(source).read_text(encoding="utf-8"))
    measured: dict[str, dict[str, Any]] = content["backbones"]
    return measured if installed_version(source) in content["versions"] else {}


def with_widths(heads: Sequence[Head], measured: Mapping[str, Any]) -> tuple[Head, ...]:
    """Return heads with their measured input widths; unmeasured heads are returned unchanged."""
    widths = measured.get("in_features")
    if widths is None:
        return tuple(heads)
    return tuple(
        replace(head, in_features=width) for head, width in zip(heads, widths, strict=True)
    )
