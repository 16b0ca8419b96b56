"""Output of commands: plain-text tables and JSON."""

from __future__ import annotations

import gc
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from zoo.terminal import printable


@contextmanager
def garbage_collection_disabled() -> Iterator[None]:
    """Disable the cyclic garbage collector: a command that lists frees almost nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout, strings unchanged; a list has one item per line."""
    click.echo(_encodable(lambda ascii: _to_json(value, ascii)))


def json_line(value: Any) -> str:
    """Return a value as JSON on one line, strings unchanged where stdout can encode them."""
    import json

    return _encodable(lambda ascii: json.dumps(value, ensure_ascii=ascii, allow_nan=False))


def _encodable(to_json: Callable[[bool], str]) -> str:
    """Return the JSON that a function returns, in ASCII only where stdout needs that."""
    text = to_json(False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        # A file name that is not UTF-8, for one; JSON can escape any of them.
        return to_json(True)
    return text


def _to_json(value: Any, ensure_ascii: bool) -> str:
    import json  # here, because tables and help do not need it

    if not isinstance(value, list) or not value:
        return json.dumps(value, indent=2, ensure_ascii=ensure_ascii, allow_nan=False)
    # With an indent, json uses its pure-Python encoder, slow on a list of all backbones.
    dump = json.JSONEncoder(ensure_ascii=ensure_ascii, allow_nan=False).encode
    return "[\n" + ",\n".join(f"  {dump(item)}" for item in value) + "\n]"


def print_line(text: str = "") -> None:
    """Print a line on stdout, control characters escaped."""
    click.echo(printable(text))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], right: str = "") -> None:
    """Print a table on stdout, its columns as wide as their longest cell.

    Args:
        header: column names.
        rows: cells as text.
        right: names of the right-aligned columns, separated by spaces.
    """
    table = [[printable(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[column]) for row in table) for column in range(len(header))]
    right_aligned = [name in right.split() for name in header]
    lines = []
    for row in table:
        cells = [
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(row, widths, right_aligned, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    click.echo("\n".join(lines))


def natural_key(text: str) -> list[tuple[int, int, str]]:
    """Return a sort key that orders resnet18 before resnet101."""
    parts = re.split(r"(\d+)", text)
    return [(1, int(part), "") if part.isdecimal() else (0, 0, part) for part in parts if part]


def short_count(number: int | None) -> str:
    """Format a parameter count such as `11.7M`; `?` if unknown."""
    if number is None:
        return "?"
    for factor, letter in ((1_000_000_000, "B"), (1_000_000, "M"), (1_000, "k")):
        if number >= factor:
            return f"{number / factor:.1f}{letter}"
    return str(number)
