"""Format numbers in the text of options."""

from __future__ import annotations


def shortest(value: float) -> str:
    """Return the shortest text that parses to the number, in `:g` format where that is exact."""
    text = f"{value:g}"
    return text if float(text) == value else repr(value)
