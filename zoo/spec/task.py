"""The description of a task: immutable data and a `"package.module:ClassName"` string."""

from __future__ import annotations

import re
from dataclasses import dataclass

from zoo.errors import UsageError
from zoo.records import validate, with_fields
from zoo.spec.targets import check_target, object_given


@dataclass(frozen=True)
class Task:
    """A kind of prediction, with its data, loss, metrics and presentation.

    Args:
        name: unique among all plugins: lower-case letters, digits and hyphens.
        summary: of its predictions, in one line.
        target: `"package.module:ClassName"` of the implementation; imported on first use.
        source: the plugin's entry-point name; set by the registry.
        plugin: the same; set by the registry.
        origin: description of what registered it; set by the registry.
    """

    name: str
    summary: str
    target: str
    source: str = ""
    plugin: str = ""
    origin: str = ""

    def __post_init__(self) -> None:
        if callable(self.target):
            raise object_given(self.target, f"task {self.name!r} has the target")
        validate(self)
        if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", self.name):
            hint = "lower-case letters, digits and hyphens only, like image-classification"
            raise UsageError(f"{self.name!r} is not a task name", hint)
        if not self.summary.strip() or len(self.summary.splitlines()) != 1:
            raise UsageError(f"task {self.name!r} needs a summary of one line")
        check_target(self.target, f"task {self.name!r} has the target")

    def with_source(self, source: str, origin: str) -> Task:
        """Return a copy with its owner set."""
        return with_fields(self, source=source, plugin=source, origin=origin)
