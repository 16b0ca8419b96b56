"""Write predictions one by one: as text, JSON or a table."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from zoo.cli.output import echo, json_line, print_line
from zoo.errors import UsageError
from zoo.files import writing

Answer = dict[str, Any]
Write = Callable[[Answer], None]


@contextmanager
def text_answers(lines: Callable[[Answer], list[str]]) -> Iterator[Write]:
    """Print the path of each image, and the lines of its prediction."""

    def write(answer: Answer) -> None:
        print_line(answer["path"])
        if "predictions" in answer:
            for line in lines(answer):
                print_line(f"  {line}")
        if "error" in answer:
            print_line(f"  error: {answer['error']}")

    yield write


@contextmanager
def json_answers() -> Iterator[Write]:
    """Print one JSON list, an image per line."""
    before = "[\n  "

    def write(answer: Answer) -> None:
        nonlocal before
        echo(f"{before}{json_line(answer)}", end="")
        before = ",\n  "

    yield write
    echo("[]" if before.startswith("[") else "\n]")


@contextmanager
def json_line_answers() -> Iterator[Write]:
    """Print a JSON object per line and image."""
    yield lambda answer: echo(json_line(answer))


@contextmanager
def csv_answers(path: Path) -> Iterator[Write]:
    """Write a table with a row for each item of each prediction; the file appears at the end.

    An image without an item has one row. Columns are `path`, the keys of the items, the other keys
    of the answer, such as `mask`, and `error`.

    Raises:
        UsageError: the keys of two predictions differ.
        EnvironmentProblem: the file cannot be written; an existing one is unchanged.
    """
    with writing(path) as file:
        table = _Table(file)
        yield table.write
        table.end()


class _Table:
    """Rows of predictions, their columns named by the first one."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.columns: list[str] = []
        self.waiting: list[dict[str, Any]] = []

    def write(self, answer: Answer) -> None:
        """Write the rows of an image."""
        shared = {name: value for name, value in answer.items() if name != "predictions"}
        for item in answer.get("predictions") or [{}]:
            self._row({"path": answer["path"], **item, **shared}, named=bool(item))

    def end(self) -> None:
        """Write rows that waited for a prediction."""
        if not self.columns:
            self._begin(["path", *dict.fromkeys(k for row in self.waiting for k in row)])

    def _begin(self, names: list[str]) -> None:
        self.columns = list(dict.fromkeys([*(n for n in names if n != "error"), "error"]))
        self._put(self.columns)
        for row in self.waiting:
            self._row(row, named=True)

    def _row(self, row: dict[str, Any], named: bool) -> None:
        if not self.columns:
            if not named:
                self.waiting.append(row)
                return
            self._begin(list(row))
        if unknown := [name for name in row if name not in self.columns]:
            message = f"{row['path']} has {', '.join(unknown)}, which the images before it have not"
            raise UsageError(message, "give --json-lines in place of --csv")
        self._put([_cell(row.get(name)) for name in self.columns])

    def _put(self, cells: list[str]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerow(cells)
        # Escape the bytes of paths that are not valid text.
        self.file.write(text.getvalue().encode(errors="backslashreplace"))


def _cell(value: Any) -> str:
    """Return a value as text: numbers in full, lists as JSON, None as nothing."""
    if isinstance(value, str):
        return value
    return "" if value is None else json.dumps(value, ensure_ascii=False)
