"""A TOML file together with the lines on which its keys stand, so that an error can say where."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from zoo.errors import RegistryError, did_you_mean

Keys = tuple[str | int, ...]
Kinds = Mapping[str, tuple[type, ...]]

# What can hide a bracket or the end of a line: strings and comments.
TOKEN = re.compile(
    r'"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|#[^\n]*|[\[\]{}]|\n',
    re.DOTALL,
)

# What TOML calls them, where Python has another name.
NAMES: dict[type, str] = {dict: "table", list: "array"}


class TomlFile:
    """One TOML file.

    Args:
        path: where it lies.

    Raises:
        RegistryError: it cannot be read, or is not TOML.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._text = path.read_text(encoding="utf-8")
            self.content: dict[str, Any] = tomllib.loads(self._text)
        except (OSError, UnicodeDecodeError) as error:
            raise RegistryError(f"cannot read {path}: {error}") from error
        except (tomllib.TOMLDecodeError, RecursionError) as error:
            raise RegistryError(f"{path}: not valid TOML: {error}") from error

    @cached_property
    def _lines(self) -> dict[Keys, int]:
        return _lines_of(self._text)

    def line(self, *keys: str | int) -> int:
        """Return the line (from 1) of a key, or of the nearest table around it."""
        while keys and keys not in self._lines:
            keys = keys[:-1]
        return self._lines.get(keys, 1)

    def where(self, *keys: str | int) -> str:
        """Say in words where a key stands."""
        return f"{self.path}, line {self.line(*keys)}"

    def error(self, keys: Keys, said: str, hint: str | None = None) -> RegistryError:
        """Return an error about a key, for the caller to raise; `said` goes on after its name."""
        return RegistryError(f"{self.where(*keys)}: {spell(keys)} {said}", hint)

    def check(self, keys: Keys, table: Any, known: Kinds) -> None:
        """Refuse a key that a table may not have, and a value of another type.

        Args:
            keys: where the table stands.
            table: what stands there.
            known: the types that the value of each key may have.

        Raises:
            RegistryError: says file, line and key, and what there may be instead.
        """
        if not isinstance(table, dict):
            raise self.error(keys, f"must be of type table, not {table!r}")
        for key, value in table.items():
            if key not in known:
                hint = did_you_mean(key, list(known), f"known keys: {', '.join(known)}")
                where = self.where(*keys, key)
                raise RegistryError(f"{where}: unknown key {spell((*keys, key))}", hint)
            kinds = known[key]
            if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
                names = " or ".join(NAMES.get(kind, kind.__name__) for kind in kinds)
                raise self.error((*keys, key), f"must be of type {names}, not {value!r}")
            if isinstance(value, str) and not value.strip():
                raise self.error((*keys, key), "is empty")


def spell(keys: Keys) -> str:
    """Write a key's full name as TOML does: `backbones."house/leaf".weights[0]`."""
    name = ""
    for key in keys:
        if isinstance(key, int):
            name += f"[{key}]"
        else:
            plain = re.fullmatch(r"[A-Za-z0-9_-]+", key)
            name += ("." if name else "") + (key if plain else f'"{key}"')
    return name


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Split a valid file into its headers and assignments, each with its first line."""
    depth, began, line, first = 0, 0, 1, 1
    for token in TOKEN.finditer(text):
        word = token.group()
        depth += (word in "[{") - (word in "]}")
        line += word.count("\n")
        if word == "\n" and depth == 0:
            yield first, text[began : token.end()]
            began, first = token.end(), line
    yield first, text[began:]


def _lines_of(text: str) -> dict[Keys, int]:
    lines: dict[Keys, int] = {}
    arrays: dict[Keys, int] = {}
    table: Keys = ()
    for first, statement in _statements(text.replace("\r\n", "\n")):
        parsed = tomllib.loads(statement)
        if statement.lstrip().startswith("["):
            table = _header(parsed, arrays)
            _note(lines, table, first)
        else:
            _note_values(lines, table, parsed, _Offsets(first, statement))
    return lines


def _note(lines: dict[Keys, int], keys: Keys, line: int) -> None:
    for length in range(1, len(keys) + 1):
        lines.setdefault(keys[:length], line)


def _header(parsed: Any, arrays: dict[Keys, int]) -> Keys:
    """Return the table that a header opens, counting the elements of arrays of tables."""
    names: list[str] = []
    while isinstance(parsed, dict) and parsed:
        ((name, parsed),) = parsed.items()
        names.append(name)
    opened: Keys = ()
    for position, name in enumerate(names, 1):
        opened = (*opened, name)
        if position == len(names) and isinstance(parsed, list):
            arrays[opened] = arrays.get(opened, 0) + 1
        if opened in arrays:
            opened = (*opened, arrays[opened] - 1)
    return opened


class _Offsets:
    """The lines of an assignment; one over several lines has its keys looked for in turn."""

    def __init__(self, first: int, statement: str) -> None:
        self._first = first
        self._rows: Sequence[str] = statement.split("\n")
        self._used: dict[str, int] = {}

    def next(self, key: str) -> int:
        """Return the line of the next assignment to a key."""
        pattern = rf"(?<![\w-]){re.escape(key)}[\"']?\s*="
        found = [number for number, row in enumerate(self._rows) for _ in re.finditer(pattern, row)]
        count = self._used.get(key, 0)
        self._used[key] = count + 1
        return self._first + (found[min(count, len(found) - 1)] if found else 0)


def _note_values(lines: dict[Keys, int], table: Keys, value: Any, offsets: _Offsets) -> None:
    if isinstance(value, dict):
        for key, inside in value.items():
            _note(lines, (*table, key), offsets.next(key))
            _note_values(lines, (*table, key), inside, offsets)
    elif isinstance(value, list):
        for number, inside in enumerate(value):
            if isinstance(inside, (dict, list)):
                _note_values(lines, (*table, number), inside, offsets)
