"""A TOML file with the line number of each key, for error messages."""

from __future__ import annotations

import contextlib
import errno
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from zoo.errors import RegistryError, did_you_mean
from zoo.files import open_regular

Keys = tuple[str | int, ...]
Kinds = Mapping[str, tuple[type, ...]]
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

MAX_BYTES = 1 << 24
# Brackets and newlines, and the strings and comments that may contain them.
TOKEN = (
    r'(?s)"""(?:\\.|[^\\])*?"{3,5}|\'\'\'.*?\'{3,5}|'
    r'"(?:\\.|[^"\\\n])*"|\'[^\'\n]*\'|#[^\n]*|[\[\]{}]|\n'
)

# Faults of a file that one error names.
MOST = 8

# TOML's names of types, where Python's differ.
NAMES: dict[type, str] = {dict: "table", list: "array"}


class TomlFile:
    """One TOML file.

    Args:
        path: of the file.

    Raises:
        RegistryError: it is unreadable or not TOML.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._text = _read_text(path)
            self.content: dict[str, Any] = tomllib.loads(self._text)
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise RegistryError(f"cannot read {path}: {reason}") from error
        except (ValueError, RecursionError) as error:  # ValueError: also of too many digits
            raise RegistryError(f"{path}: not valid TOML: {error}") from error

    @cached_property
    def _lines(self) -> dict[Keys, int]:
        return _lines_of(self._text)

    def line(self, *keys: str | int) -> int:
        """Return the line (from 1) of a key, or of its innermost existing table."""
        while keys and keys not in self._lines:
            keys = keys[:-1]
        return self._lines.get(keys, 1)

    def location(self, *keys: str | int) -> str:
        """Return the location of a key as text: file and line."""
        return f"{self.path}, line {self.line(*keys)}"

    def error(self, keys: Keys, problem: str, hint: str | None = None) -> RegistryError:
        """Return an error about a key, for the caller to raise; `problem` follows its name."""
        return RegistryError(f"{self.location(*keys)}: {dotted_key(keys)} {problem}", hint)

    def check(self, keys: Keys, table: Any, known: Kinds) -> None:
        """Refuse unknown keys of a table, and values of a wrong type.

        Args:
            keys: of the table.
            table: its value.
            known: the accepted types of each key's value.

        Raises:
            RegistryError: names file, line and key, and the accepted keys or types, of each.
        """
        if not isinstance(table, dict):
            raise self.error(keys, f"must be of type table, not {table!r}")
        faults = Faults(self)
        for key, value in table.items():
            with faults.collecting():
                self._check_value((*keys, key), value, known)
        faults.raise_all()

    def _check_value(self, keys: Keys, value: Any, known: Kinds) -> None:
        key = keys[-1]
        if key not in known:
            hint = did_you_mean(str(key), list(known), f"known keys: {', '.join(known)}")
            location = self.location(*keys)
            raise RegistryError(f"{location}: unknown key {dotted_key(keys)}", hint)
        kinds = known[str(key)]
        if not is_of_kind(value, kinds):
            names = " or ".join(NAMES.get(kind, kind.__name__) for kind in kinds)
            raise self.error(keys, f"must be of type {names}, not {value!r}")
        if isinstance(value, str) and not value.strip():
            raise self.error(keys, "is empty")

    def absolute_path(self, keys: Keys, text: str) -> str:
        """Return the value of a key as an absolute path; relative ones are relative to the file.

        Raises:
            RegistryError: it is not a path; names file, line and key.
        """
        try:
            if "\0" in text:
                raise ValueError("it contains a null byte")
            return str(self.path.absolute().parent / Path(text).expanduser())
        except (ValueError, RuntimeError) as error:
            raise self.error(keys, f"is not a path: {error}") from error


class Faults:
    """The faults of a file, to name them all.

    Args:
        file: that is read.
    """

    def __init__(self, file: TomlFile) -> None:
        self.file = file
        self.errors: dict[str, RegistryError] = {}

    @contextlib.contextmanager
    def collecting(self) -> Iterator[None]:
        """Record the error of a block."""
        try:
            yield
        except RegistryError as error:
            for each in error.parts or (error,):
                self.errors.setdefault(str(each), each)

    def collected(
        self, read: Callable[Arguments, Result], *args: Arguments.args, **kwargs: Arguments.kwargs
    ) -> Result | None:
        """Return what a function returns; record its error."""
        with self.collecting():
            return read(*args, **kwargs)
        return None

    def raise_all(self) -> None:
        """Raise one error, if there are any.

        Raises:
            RegistryError: the recorded one, or one that names those on the first lines.
        """
        errors = tuple(self.errors.values())
        if len(errors) == 1:
            raise errors[0]
        if not errors:
            return
        prefix = f"{self.file.path}, line "
        texts = [
            (each.message.removeprefix(prefix), f" ({each.hint})" if each.hint else "")
            for each in errors
        ]
        texts.sort(key=lambda text: int(text[0].partition(":")[0]))
        shown = "; ".join(f"line {message}{hint}" for message, hint in texts[:MOST])
        more = f"; and {len(texts) - MOST} more" if len(texts) > MOST else ""
        combined = RegistryError(f"{self.file.path} has {len(texts)} errors: {shown}{more}")
        combined.parts = errors
        raise combined


def is_of_kind(value: Any, kinds: tuple[type, ...]) -> bool:
    """Whether a value is of one of some types; a truth value is no number."""
    return isinstance(value, kinds) and (not isinstance(value, bool) or bool in kinds)


def _read_text(path: Path) -> str:
    """Read a regular file, with every kind of line end as a newline.

    Raises:
        OSError: it is missing, unreadable, not a regular file, or larger than any registry.
        UnicodeDecodeError: it is not UTF-8.
    """
    with open_regular(path) as file:
        data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise OSError(errno.EFBIG, "it is too large for a registry.toml", str(path))
    return data.decode().replace("\r\n", "\n").replace("\r", "\n")


def dotted_key(keys: Keys) -> str:
    """Return a key as TOML's dotted key: `backbones."house/leaf".weights[0]`."""
    name = ""
    for key in keys:
        if isinstance(key, int):
            name += f"[{key}]"
        else:
            bare = re.fullmatch(r"[A-Za-z0-9_-]+", key)
            name += ("." if name else "") + (key if bare else f'"{key}"')
    return name


def _statements(text: str) -> Iterator[tuple[int, str]]:
    """Split valid TOML into headers and assignments, each with its first line number."""
    depth, start, line, first = 0, 0, 1, 1
    for match in re.finditer(TOKEN, text):
        token = match.group()
        depth += (token in "[{") - (token in "]}")
        line += token.count("\n")
        if token == "\n" and depth == 0:
            yield first, text[start : match.end()]
            start, first = match.end(), line
    yield first, text[start:]


def _lines_of(text: str) -> dict[Keys, int]:
    lines: dict[Keys, int] = {}
    arrays: dict[Keys, int] = {}
    table: Keys = ()
    for first, statement in _statements(text.replace("\r\n", "\n")):
        parsed = tomllib.loads(statement)
        if statement.lstrip().startswith("["):
            table = _header(parsed, arrays)
            _record(lines, table, first)
        else:
            _record_values(lines, table, parsed, _KeyLines(first, statement))
    return lines


def _record(lines: dict[Keys, int], keys: Keys, line: int) -> None:
    for length in range(1, len(keys) + 1):
        lines.setdefault(keys[:length], line)


def _header(parsed: Any, arrays: dict[Keys, int]) -> Keys:
    """Return the keys of a header's table, with indices into arrays of tables."""
    names: list[str] = []
    while isinstance(parsed, dict) and parsed:
        ((name, parsed),) = parsed.items()
        names.append(name)
    keys: Keys = ()
    for depth, name in enumerate(names, 1):
        keys = (*keys, name)
        if depth == len(names) and isinstance(parsed, list):
            arrays[keys] = arrays.get(keys, 0) + 1
        if keys in arrays:
            keys = (*keys, arrays[keys] - 1)
    return keys


class _KeyLines:
    """The line of each key in an assignment, which may span several lines."""

    def __init__(self, first: int, statement: str) -> None:
        self._first = first
        self._rows: Sequence[str] = statement.split("\n")
        self._counts: dict[str, int] = {}

    def next(self, key: str) -> int:
        """Return the line of the next assignment to a key."""
        pattern = rf"(?<![\w-]){re.escape(key)}[\"']?\s*="
        rows = [number for number, row in enumerate(self._rows) for _ in re.finditer(pattern, row)]
        count = self._counts.get(key, 0)
        self._counts[key] = count + 1
        return self._first + (rows[min(count, len(rows) - 1)] if rows else 0)


def _record_values(lines: dict[Keys, int], table: Keys, value: Any, key_lines: _KeyLines) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _record(lines, (*table, key), key_lines.next(key))
            _record_values(lines, (*table, key), item, key_lines)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            if isinstance(item, (dict, list)):
                _record_values(lines, (*table, number), item, key_lines)
