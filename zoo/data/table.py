"""Read CSV and TSV files in UTF-8, line by line."""

from __future__ import annotations

import csv
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from zoo.errors import DataError

SEPARATORS = {".csv": ",", ".tsv": "\t"}


def is_table(path: Path) -> bool:
    """Return whether a path has the suffix of a table and is not a folder."""
    # pathlib raises for a path without permission; os.path returns False.
    return path.suffix.lower() in SEPARATORS and not os.path.isdir(path)  # noqa: PTH112


def read_rows(path: Path, expected: str) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and fields of each row that is not empty.

    Args:
        path: a CSV or TSV file in UTF-8; the suffix determines the separator.
        expected: hint of errors, the expected content of the table.

    Raises:
        DataError: it cannot be read, or is not a table.
    """
    line = 0
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError(f"{path} is not a regular file", expected)
        with path.open(encoding="utf-8-sig", newline="") as file:
            # Without strict, an unclosed quote includes the lines below it without an error.
            separator = SEPARATORS[path.suffix.lower()]
            reader = csv.reader(file, delimiter=separator, skipinitialspace=True, strict=True)
            for row in reader:
                cells = [cell.strip() for cell in row]
                if any(cells):
                    yield line + 1, cells
                line = reader.line_num
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist", expected) from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is not UTF-8 text", "save it as CSV in UTF-8") from error
    except csv.Error as error:
        hint = 'close each field that begins with " and write "" for a quote inside it'
        raise DataError(f"{path}, line {line + 1}: {error}", hint) from error
