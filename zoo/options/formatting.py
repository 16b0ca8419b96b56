"""Numbers in the text of options."""

from __future__ import annotations


def shortest(value: float) -> str:
    """Return the shortest text that reads back as the number, as `:g` has it where that will do."""
    text = f"{value:g}"
    return text if float(text) == value else repr(value)
