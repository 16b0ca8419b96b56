"""The output of a network, whatever container it returns."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any


def named_outputs(output: Any) -> Any:
    """Return a dataclass as a mapping of its fields that are not None; other outputs as they are.

    The output classes of transformers are mappings that omit such fields too.
    """
    if not is_dataclass(output) or isinstance(output, (type, dict)):
        return output
    values = ((field.name, getattr(output, field.name, None)) for field in fields(output))
    return {name: value for name, value in values if value is not None}
