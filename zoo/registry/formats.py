"""The formats that plugins register for `zoo export`."""

from __future__ import annotations

from collections.abc import Mapping

from zoo.errors import UsageError, did_you_mean
from zoo.registry.plugins import FAILED, OFF, OK
from zoo.registry.registry import Registry
from zoo.spec import ExportFormat


def export_formats(registry: Registry) -> Mapping[str, ExportFormat]:
    """Return the formats of all working plugins by name, in loading order."""
    working = [record for record in registry.host.records if record.status == OK]
    return {item.name: item for record in working for item in record.formats}


def find_format(registry: Registry, name: str) -> ExportFormat:
    """Return the format of a name.

    Raises:
        UsageError: no working plugin registers it; the hint has the nearest, or all.
    """
    formats = export_formats(registry)
    if name in formats:
        return formats[name]
    if near := did_you_mean(name, list(formats)):
        raise UsageError(f"no format is named {name!r}", near)
    unavailable = {"switched off": OFF, "failed": FAILED}
    notes = [
        f"plugins {text}: {', '.join(names)}"
        for text, status in unavailable.items()
        if (names := [each.name for each in registry.host.records if each.status == status])
    ]
    note = f" ({'; '.join(notes)})" if notes else ""
    hint = f"one of {', '.join(formats)}" if formats else "no plugin registers any"
    raise UsageError(f"no format is named {name!r}{note}", hint)
