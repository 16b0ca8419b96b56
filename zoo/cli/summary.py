"""Summaries that fit on a terminal of 24 lines of 80 columns, with its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile
from typing import TYPE_CHECKING

from zoo.cli.output import print_line, print_table
from zoo.terminal import printable

if TYPE_CHECKING:
    from zoo.tasks.results import Table

# One of the 24 is the prompt after the summary.
LINES, COLUMNS = 23, 80
# Rows of a table that are printed however many lines come before it.
FEWEST = 3
MAX_CELL = 36
REPORT = "report.html"


def height(lines: Sequence[str]) -> int:
    """Return the number of rows of the terminal that lines take, the long ones wrapped."""
    return sum(max(-(-len(printable(line)) // COLUMNS), 1) for line in lines)


def fitting(lines: Sequence[str], room: int) -> list[str]:
    """Return the first lines that fit into a number of rows of the terminal."""
    fits = takewhile(lambda count: height(lines[:count]) <= room, range(1, len(lines) + 1))
    return list(lines[: max(fits, default=0)])


def print_summary(lines: Sequence[str], table: Table | None, after: Sequence[str]) -> None:
    """Print lines, a table as far as it fits, and further lines.

    Args:
        lines: before the table.
        table: only the rows of the lowest ranks are printed if not all fit.
        after: lines after the table.
    """
    for line in lines:
        print_line(line)
    if table is not None:
        print_line()
        # Its header and an empty line.
        rest = _print_fitting(table, LINES - height([*lines, *after]) - 2)
        if rest:
            print_line(f"and {rest:,} more; --json has them all")
    for line in after:
        print_line(line)


def _print_fitting(table: Table, room: int) -> int:
    """Print a table in a number of lines, and return how many rows are left out."""
    shown = table
    if table.optional and (len(table.rows) > room or _width(table) > COLUMNS):
        keep = [i for i, name in enumerate(table.header) if name not in table.optional]
        rows = tuple(tuple(row[i] for i in keep) for row in table.rows)
        shown = replace(table, header=tuple(table.header[i] for i in keep), rows=rows)
    if len(table.rows) > room:
        room = max(room - 1, FEWEST)  # for the line that counts the others
        ranks = table.ranks or tuple(range(len(table.rows)))
        chosen = sorted(range(len(table.rows)), key=ranks.__getitem__)[:room]
        shown = replace(shown, rows=tuple(shown.rows[index] for index in chosen))
    if _width(shown) > COLUMNS:
        shown = replace(shown, rows=tuple(tuple(map(_short, row)) for row in shown.rows))
    print_table(shown.header, shown.rows, right=" ".join(shown.right))
    return len(table.rows) - len(shown.rows)


def _width(table: Table) -> int:
    columns = zip(table.header, *table.rows, strict=True)
    return sum(max(len(printable(cell)) for cell in column) + 2 for column in columns) - 2


def _short(cell: str) -> str:
    return cell if len(cell) <= MAX_CELL else f"{cell[: MAX_CELL - 3]}..."
