"""Reading tables: CSV and TSV files in UTF-8, line by line."""

from __future__ import annotations

import csv
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from zoo.errors import DataError

SEPARATORS = {".csv": ",", ".tsv": "\t"}


def is_table(path: Path) -> bool:
    """Whether a path means a table: by its suffix, unless it is a folder."""
    # A path without permission is not asked for here, where pathlib would raise.
    return path.suffix.lower() in SEPARATORS and not os.path.isdir(path)  # noqa: PTH112


def read_rows(path: Path, expected: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the lines of a table that are not empty: the number of each, and its fields.

    Args:
        path: a CSV or TSV file in UTF-8, told apart by its suffix.
        expected: the hint of a table that cannot be read: what it should contain.

    Raises:
        DataError: it cannot be read, or is no table.
    """
    line = 0
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise DataError(f"{path} is not a regular file", expected)
        with path.open(encoding="utf-8-sig", newline="") as file:
            # Strict, or a quote that is not closed would swallow the lines below it.
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
        hint = 'a field that begins with " ends with one; write "" for a quote inside'
        raise DataError(f"{path}, line {line + 1}: {error}", hint) from error
