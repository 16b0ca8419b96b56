"""Columns of a table of images, by role."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zoo.errors import UsageError, did_you_mean

NONE = "none"
FORMS = "write image=NAME,label=NAME,split=NAME, or numbers from 1 where no line names the columns"
_ROLES = {"image": "image", "path": "image", "label": "label", "split": "split"}


@dataclass(frozen=True)
class Columns:
    """The columns of a table, by name, or by number from 1; None to infer one.

    Args:
        image: paths.
        label: class names.
        split: names of splits; `none` for a table without.
    """

    image: str | None = None
    label: str | None = None
    split: str | None = None

    def __str__(self) -> str:
        pairs = vars(self).items()
        return ",".join(f"{role}={name}" for role, name in pairs if name is not None)

    @classmethod
    def parse(cls, given: str | Mapping[str, Any]) -> Columns:
        """Parse `image=NAME,label=NAME,split=NAME`, or a mapping of roles to names.

        Raises:
            UsageError: a role is unknown, repeated or without a name.
        """
        if isinstance(given, Mapping):
            pairs = [(str(role), str(name)) for role, name in given.items()]
        else:
            # A comma may be part of a name.
            parts = re.split(r",(?=\s*\w+\s*=)", given)
            pairs = [(role, name) for role, _, name in (part.partition("=") for part in parts)]
        columns: dict[str, str] = {}
        for text, name in ((text.strip(), name.strip()) for text, name in pairs):
            role = _ROLES.get(text)
            if role is None:
                hint = did_you_mean(text, list(_ROLES), FORMS)
                raise UsageError(f"--columns names the role {text!r}", hint)
            if role in columns or not name:
                problem = "twice" if role in columns else "without a column"
                raise UsageError(f"--columns names the role {text} {problem}", FORMS)
            columns[role] = name
        return cls(**columns)


def read_columns(given: Any) -> Columns:
    """Return columns of text, a mapping or a `Columns`.

    Raises:
        UsageError: it is something else, or malformed.
    """
    if isinstance(given, Columns):
        return given
    if not isinstance(given, (str, Mapping)):
        raise UsageError(f"--columns is {given!r}", FORMS)
    return Columns.parse(given)
