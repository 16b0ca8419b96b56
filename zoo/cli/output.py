"""Output of commands: plain-text tables and JSON."""

from __future__ import annotations

import gc
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any, TextIO

import click

from zoo.terminal import printable, printable_json

# The file descriptor that native code and child processes write to.
NATIVE = 1
_reserved: list[TextIO] = []


def stdout() -> TextIO:
    """Return the stream of a command's own output."""
    return _reserved[-1] if _reserved else sys.stdout


@contextmanager
def reserved_stdout() -> Iterator[None]:
    """Reserve stdout for `echo`, `print_json` and `json_line`.

    All else that is written to it goes to stderr: prints of builders, forward passes and libraries,
    native code and child processes too, which write to the file descriptor.
    """
    shown = sys.stdout
    shown.flush()
    try:
        replacement, numbers = sys.stderr.fileno(), {shown.fileno(), NATIVE}
    except OSError:  # captured in memory, as in tests
        with _reserving(shown):
            yield
        return
    copies = {number: os.dup(number) for number in numbers}
    encoding, errors = shown.encoding, shown.errors
    own = open(os.dup(shown.fileno()), "w", encoding=encoding, errors=errors)  # noqa: SIM115, PTH123
    try:
        for number in numbers:
            os.dup2(replacement, number)
        with _reserving(own):
            yield
    finally:
        # After a full disk or a closed pipe, closing fails again; that has been reported.
        for end in (shown.flush, own.close):
            with suppress(OSError):
                end()
        for number, copy in copies.items():
            os.dup2(copy, number)
            os.close(copy)


@contextmanager
def _reserving(stream: TextIO) -> Iterator[None]:
    _reserved.append(stream)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _reserved.pop()


def echo(text: str, end: str = "\n") -> None:
    """Print text on stdout as it is, even where that is reserved."""
    with naming_stdout():
        click.echo(f"{text}{end}", file=stdout(), nl=False)


@contextmanager
def naming_stdout() -> Iterator[None]:
    """Name stdout in the error of writing to it, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or "stdout"
        raise


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
    """Print a value as JSON on stdout; a list has one item per line."""
    echo(_encodable(lambda ascii: _to_json(value, ascii)))


def json_line(value: Any) -> str:
    """Return a value as JSON on one line, escaped only where it must be to be printed."""
    import json

    return _encodable(lambda ascii: json.dumps(value, ensure_ascii=ascii, allow_nan=False))


def _encodable(to_json: Callable[[bool], str]) -> str:
    """Return the JSON that a function returns, without control characters of terminals.

    In ASCII only where stdout needs that.
    """
    text = printable_json(to_json(False))
    try:
        text.encode(stdout().encoding or "utf-8")
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
    with naming_stdout():
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
    with naming_stdout():
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
