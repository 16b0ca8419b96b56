"""What commands print: plain tables for people, JSON for programs."""

from __future__ import annotations

import gc
import json
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from zoo.terminal import printable


@contextmanager
def without_collecting() -> Iterator[None]:
    """Look for no garbage meanwhile: a command that only lists keeps nearly all that it makes."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout, every text exactly as it is; a list line by line."""
    text = _to_json(value, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        # Such as the name of a file that is not UTF-8; JSON has escapes for all there is.
        text = _to_json(value, ensure_ascii=True)
    click.echo(text)


def _to_json(value: Any, ensure_ascii: bool) -> str:
    if not isinstance(value, list) or not value:
        return json.dumps(value, indent=2, ensure_ascii=ensure_ascii, allow_nan=False)
    # Indented all through, a list of every backbone would take Python's own slow encoder.
    dump = json.JSONEncoder(ensure_ascii=ensure_ascii, allow_nan=False).encode
    return "[\n" + ",\n".join(f"  {dump(item)}" for item in value) + "\n]"


def print_line(text: str = "") -> None:
    """Print a line for people on stdout."""
    click.echo(printable(text))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: str = "") -> None:
    """Print columns on stdout, as wide as they need to be.

    Args:
        header: names of the columns.
        rows: cells as text.
        right: names of the columns that are aligned to the right, in one string.
    """
    table = [[printable(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    to_right = [name in right.split() for name in header]
    lines = []
    for row in table:
        cells = [
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(row, widths, to_right, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    click.echo("\n".join(lines))


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Return a sorting key that puts resnet18 before resnet101."""
    parts = re.split(r"(\d+)", text)
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts if part]


def short_count(number: int | None) -> str:
    """Return a number of parameters for people: `11.7M`; `?` where it is not known."""
    if number is None:
        return "?"
    for factor, letter in ((1_000_000_000, "B"), (1_000_000, "M"), (1_000, "k")):
        if number >= factor:
            return f"{number / factor:.1f}{letter}"
    return str(number)
