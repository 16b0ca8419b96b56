"""Read tables in UTF-8, row by row: CSV, TSV, text lists and JSON lines."""

from __future__ import annotations

import csv
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from zoo.data.names import split_of
from zoo.data.scan import is_data_folder, list_folder, shorten
from zoo.errors import DataError, counted

# Fields are separated by whitespace if a text list has no other separator.
SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "", ".lst": "", ".list": ""}
JSON_LINES = (".jsonl", ".ndjson")
METADATA = ("metadata.csv", "metadata.jsonl")
SAMPLE = 2000

Row = tuple[int, list[str]]


def is_table(path: Path) -> bool:
    """Return whether a path has the suffix of a table and is not a folder."""
    known = path.suffix.lower() in (*SEPARATORS, *JSON_LINES)
    # pathlib raises for a path without permission; os.path returns False.
    return known and not os.path.isdir(path)  # noqa: PTH112


def metadata_table(folder: Path) -> Path | None:
    """Return the table in a folder of images without sub-folders, as Hugging Face names it."""
    if not os.path.isdir(folder):  # noqa: PTH112
        return None
    entries = list_folder(folder)
    names = {entry.name for entry in entries}
    if any(is_data_folder(entry) for entry in entries):
        return None
    return next((folder / name for name in METADATA if name in names), None)


def names_columns(path: Path) -> bool:
    """Return whether the first row of a table always names the columns, as in JSON lines."""
    return path.suffix.lower() in JSON_LINES


def read_rows(path: Path, expected: str) -> Iterator[Row]:
    """Yield line number and fields of each row that is not empty.

    Args:
        path: a table in UTF-8. In CSV and TSV, the separator is that of the suffix, or another
            that the first line has; a text list separates its last field, or two if the last is a
            split, by whitespace. The first row of JSON lines is their keys.
        expected: hint of errors, the expected content of the table.

    Raises:
        DataError: it cannot be read, or is not a table.
    """
    with _opened(path, expected) as file:
        if names_columns(path):
            yield from _read_objects(path, file)
            return
        first = next((line for line in file if line.strip()), "")
        file.seek(0)
        separator = _separator(first, SEPARATORS[path.suffix.lower()])
        rows = _read_fields(path, file, separator) if separator else _read_words(file, first)
        for line, fields in rows:
            cells = [cell.strip() for cell in fields]
            if any(cells):
                yield line, cells


def sample_rows(path: Path, expected: str) -> list[Row]:
    """Return the first row and up to `SAMPLE` others, evenly spaced over the whole table.

    Raises:
        DataError: it cannot be read, or is not a table.
    """
    rows = read_rows(path, expected)
    first = next(rows, None)
    if first is None:
        return []
    sample: list[Row] = []
    step = 1
    for number, row in enumerate(rows):
        if number % step:
            continue
        sample.append(row)
        if len(sample) > SAMPLE:
            sample, step = sample[::2], 2 * step
    return [first, *sample]


@contextmanager
def _opened(path: Path, expected: str) -> Iterator[TextIO]:
    """Open a table; raise `DataError` for what the system or the encoding refuses inside."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError(f"{path} is not a regular file", expected)
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield file
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist", expected) from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text", "save it as CSV in UTF-8") from error


def _separator(line: str, usual: str) -> str:
    """Return the usual separator, or another if the line has only that; "" for whitespace."""
    for mark in filter(None, dict.fromkeys((usual, "\t", ";", ",", "|"))):
        try:
            fields = next(csv.reader([line], delimiter=mark, skipinitialspace=True), [])
        except csv.Error:  # a field that is too long is reported when it is read
            return usual
        if len(fields) > 1:
            return mark
    return usual


def _read_fields(path: Path, file: TextIO, separator: str) -> Iterator[Row]:
    line = 0
    # Without strict, an unclosed quote includes the lines below it without an error.
    reader = csv.reader(file, delimiter=separator, skipinitialspace=True, strict=True)
    try:
        for row in reader:
            yield line + 1, row
            line = reader.line_num
    except csv.Error as error:
        hint = 'close each field that begins with " and write "" for a quote inside it'
        raise DataError(f"{path}, line {line + 1}: {error}", hint) from error


def _read_words(file: TextIO, first: str) -> Iterator[Row]:
    """Yield the rows of a text list; a path may contain spaces."""
    words = first.split()
    splits = len(words) > 2 and (split_of(words[-1]) or words[-1].lower() == "split")
    for number, line in enumerate(file, start=1):
        yield number, line.rsplit(None, 2 if splits else 1)


def _read_objects(path: Path, file: TextIO) -> Iterator[Row]:
    """Yield the keys of all objects, then the values of each."""
    keys: dict[str, None] = {}
    for _, row in _objects(path, file):
        keys |= dict.fromkeys(row)
    if not keys:
        return
    yield 1, list(keys)
    file.seek(0)
    for line, row in _objects(path, file):
        yield line, [_text(row.get(key)) for key in keys]


def _objects(path: Path, file: TextIO) -> Iterator[tuple[int, dict[str, object]]]:
    """Yield number and object of each line; raise at the end where some are none."""
    faults = []
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.rstrip().removeprefix("\ufeff"))
        except json.JSONDecodeError as error:
            faults.append(f"line {number}, column {error.pos + 1}: {error.msg}")
            continue
        except (ValueError, RecursionError) as error:  # of too many digits, or brackets
            faults.append(f"line {number}: {error}")
            continue
        if isinstance(row, dict):
            yield number, row
        else:
            faults.append(f"line {number} is a {type(row).__name__}, not an object")
    if faults:
        invalid = f"{path}: {counted(len(faults), 'line is', 'lines are')} no object"
        raise DataError(f"{invalid}: {shorten(faults, separator='; ')}", "write an object per line")


def _text(value: object) -> str:
    if value is None:
        return ""
    return value.strip() if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
