"""The description of a format that networks are exported to."""

from __future__ import annotations

import re
from dataclasses import dataclass

from zoo.errors import UsageError
from zoo.records import validate, with_fields
from zoo.spec.targets import check_target, object_given


@dataclass(frozen=True)
class ExportFormat:
    """A format of files that other programs run a network from, for `zoo export --format NAME`.

    Args:
        name: unique among all plugins: lower-case letters, digits and hyphens.
        summary: what it is for, in one line.
        target: `"package.module:ClassName"` of its `zoo.inference.export.exporter.Exporter`;
            imported on first use.
        source: the plugin's entry-point name; set by the registry.
        origin: description of what registered it; set by the registry.
    """

    name: str
    summary: str
    target: str
    source: str = ""
    origin: str = ""

    def __post_init__(self) -> None:
        if callable(self.target):
            raise object_given(self.target, f"format {self.name!r} has the target")
        validate(self)
        if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", self.name):
            hint = "lower-case letters, digits and hyphens only, like onnx"
            raise UsageError(f"{self.name!r} is not the name of a format", hint)
        if not self.summary.strip() or len(self.summary.splitlines()) != 1:
            raise UsageError(f"format {self.name!r} needs a summary of one line")
        check_target(self.target, f"format {self.name!r} has the target")

    def with_source(self, source: str, origin: str) -> ExportFormat:
        """Return a copy with its owner set."""
        return with_fields(self, source=source, origin=origin)
