"""The file that names the classes of masks."""

from __future__ import annotations

import re
from pathlib import Path

from zoo.data.names import nfc
from zoo.data.scan import shorten
from zoo.errors import DataError, counted
from zoo.tasks.segmentation.schema import IGNORE_INDEX, MAX_CLASSES

CLASSES = "classes.txt"


def read_classes(file: Path) -> tuple[tuple[str, ...], tuple[str | None, ...]]:
    """Read names and colours: one line per index, `name` or `name #rrggbb`.

    Raises:
        DataError: it cannot be read, or names are missing or repeated, or colours are invalid;
            lists all such lines.
    """
    try:
        lines = nfc(file.read_text(encoding="utf-8-sig")).rstrip().splitlines()
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text", "save it as UTF-8") from error
    names: list[str] = []
    colors: list[str | None] = []
    faults = []
    for number, line in enumerate(lines, start=1):
        match = re.fullmatch(r"\s*(.*?)(?:\s+(#\w{6}))?\s*", line)
        assert match is not None
        name, color = match.groups()
        if not name or name in names:
            problem = f"names {name!r} twice" if name else "has no name"
            faults.append(f"line {number} {problem}")
        if color and not re.fullmatch("#[0-9a-fA-F]{6}", color):
            faults.append(f"line {number} has the colour {color}")
        names.append(name)
        colors.append(color.lower() if color else None)
    if faults:
        hint = "write one name per line, and after it optionally a colour as #804080"
        raise DataError(f"{file}, {shorten(faults)}", hint)
    if not 0 < len(names) <= MAX_CLASSES:
        hint = f"name 1 to {MAX_CLASSES}; index {IGNORE_INDEX} is ignored"
        raise DataError(f"{file} names {counted(len(names), 'class')}", hint)
    return tuple(names), tuple(colors)
