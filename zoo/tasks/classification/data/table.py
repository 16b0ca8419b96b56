"""Tables of images: a CSV or TSV file of path, label and maybe split."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path, PurePosixPath

from zoo.data.scan import counted, shorten
from zoo.data.schema import Schema
from zoo.data.split import SPLITS, FileSplit, ImageData
from zoo.data.splitting import choose_split, fingerprint, listed
from zoo.data.table import read_rows
from zoo.errors import DataError, did_you_mean
from zoo.tasks.classification.data.scan import Images
from zoo.tasks.classification.data.splitting import (
    SplitName,
    check_drawn,
    check_held,
    check_known,
    file_split,
    hold_out,
    why_drawn,
)

# What a person may call a column.
# fmt: off
COLUMNS = {
    "path": "path", "file": "path", "filename": "path", "image": "path",
    "label": "label", "class": "label", "split": "split",
}
# fmt: on

EXPECTED = "list an image on each line, as path,label or path,label,split"

# By split, empty where there is no such column, and by class: each image's path and line.
Lines = dict[str, dict[str, list[tuple[str, int]]]]


def open_table(path: Path, *, seed: int, val_fraction: float) -> ImageData:
    """Find the images that a table lists, and split them for training.

    Args:
        path: a CSV or TSV file in UTF-8 with the columns path, label and maybe split; in this
            order, or as a first line names them. Paths are relative to the file's folder.
        seed: decides which images are held out where the table has none for validation.
        val_fraction: the share of each class that is held out there, between 0 and 1.

    Raises:
        DataError: it cannot be trained on; says which lines are wrong.
    """
    table = _read(path)
    if not table.plain and "train" not in table.lines:
        message = f"{path} lists images of {listed(table.lines)}, but none of train"
        raise DataError(message, "give some lines the split train")
    notices = [*table.notices]
    found = table.find(table.lines)
    parts = {"train": found.get("train") or found[""]}
    there = table.split_name("train")
    if len(parts["train"]) == 1:
        (only,) = parts["train"]
        raise DataError(f"{there.full} lists only one class, {only}; two are the least", EXPECTED)
    for split in [split for split in ("val", "test") if split in found]:
        parts[split] = found[split]
        notices += check_held(parts["train"], parts[split], table.split_name(split), there)
    reason = f"{listed(parts)} as listed"
    if "val" not in parts:
        parts["train"], parts["val"] = hold_out(parts["train"], seed, val_fraction)
        lone = [label for label, held in parts["val"].items() if not held]
        notices += check_drawn(lone, len(parts["val"]), there.full)
        reason = why_drawn(there.short, seed, val_fraction)
    classes = tuple(parts["train"])
    if alike := _alike(classes):
        notices.append(f"classes differ in case alone: {shorten(alike)}")
    parts = {split: parts[split] for split in ("train", "val", "test") if split in parts}
    return ImageData(
        name=path.name,
        schema=Schema(classes),
        splits={split: file_split(split, path.parent, parts[split], classes) for split in parts},
        fingerprint=fingerprint(parts),
        notices=tuple(notices),
        reason=reason,
    )


def open_table_split(path: Path, classes: Sequence[str], split: str | None = None) -> FileSplit:
    """Find the images that a table lists to evaluate a model on.

    Args:
        path: a table as for `open_table`.
        classes: the model's, in its order; labels point into them by name.
        split: which one; None for `test` where there is one, else `val`. A table without a
            column for it has one split, `all`.

    Raises:
        DataError: no such split, lines of it that are wrong, or classes that the model does not
            know.
    """
    table = _read(path)
    name = ""
    if not table.plain:
        name = choose_split(path, {split: split for split in table.lines}, split)
    elif split not in (None, "all"):
        message = f"{path} has no split {split!r}: it has no column for it"
        raise DataError(message, "leave the split out to evaluate on all images")
    check_known(list(table.lines[name]), classes, table.split_name(name).full)
    # Of this split alone: the images of the others need not be here.
    images = table.find([name])[name]
    return file_split(name or "all", path.parent, images, classes)


@dataclass
class _Problems:
    """What is wrong with a table, by kind: how many lines, and the first few of them."""

    path: Path
    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, list[str]] = field(default_factory=dict)
    hint: str = ""

    def add(self, kind: str, what: str, line: int, hint: str | None = None) -> None:
        """Note a line; the kind is written `1 image does not exist|images do not exist`."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        shown = self.first.setdefault(kind, [])
        if len(shown) < 5:
            shown.append(f"{what} (line {line})" if what else f"line {line}")
        self.hint = self.hint or hint or ""

    def check(self) -> None:
        """Refuse the table if anything is wrong with it."""
        if not self.counts:
            return
        parts = []
        for kind, count in self.counts.items():
            one, _, many = kind.partition("|")
            more = f" and {count - 5:,} more" if count > 5 else ""
            parts.append(f"{counted(count, one, many)}: {', '.join(self.first[kind])}{more}")
        total = sum(self.counts.values())
        lines = f"{counted(total, 'line')} are wrong; " if len(parts) > 1 else ""
        raise DataError(f"{self.path}: {lines}{'; '.join(parts)}", self.hint or EXPECTED)


@dataclass(frozen=True)
class _Columns:
    """Where a line has what, how many fields it has, and what else is in it."""

    path: int
    label: int
    split: int | None
    width: int
    header: bool
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Table:
    """What a table lists, before any image is looked for."""

    path: Path
    lines: Lines
    notices: tuple[str, ...]
    header: bool

    @property
    def plain(self) -> bool:
        return "" in self.lines

    def split_name(self, split: str) -> SplitName:
        """What messages call a split."""
        return (
            SplitName(str(self.path), "")
            if self.plain
            else SplitName(f"{split} of {self.path}", split)
        )

    def find(self, splits: Iterable[str]) -> dict[str, Images]:
        """Look for the images of some splits; classes and images come back in order of name."""
        problems = _Problems(self.path)
        found: dict[str, Images] = {}
        for split in splits:
            classes = self.lines[split]
            found[split] = {
                label: sorted(self._sizes(classes[label], problems)) for label in _in_order(classes)
            }
        problems.check()
        return found

    def _sizes(
        self, images: list[tuple[str, int]], problems: _Problems
    ) -> Iterator[tuple[str, int]]:
        folder = str(self.path.parent)
        for path, line in images:
            try:
                status = os.stat(os.path.join(folder, path))  # noqa: PTH116, PTH118 - a million
            except (FileNotFoundError, NotADirectoryError):
                hint = self._why_missing(path, line)
                problems.add("image does not exist|images do not exist", path, line, hint)
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                what = f"{path!r}, {reason}"
                problems.add("image cannot be read|images cannot be read", what, line)
            else:
                if stat.S_ISREG(status.st_mode):
                    yield path, status.st_size
                elif stat.S_ISDIR(status.st_mode):
                    problems.add("path is a folder|paths are folders", path, line)
                else:
                    problems.add("path is no regular file|paths are no regular files", path, line)

    def _why_missing(self, path: str, line: int) -> str:
        if line == 1 and not self.header:
            return "a first line that names the columns calls them path, label and split"
        if "\\" in path and os.sep == "/":
            return "write / between folders"
        return f"paths are relative to {self.path.parent.absolute()}"


def _in_order(names: Iterable[str]) -> list[str]:
    """Sort names of classes: by value where all of them are whole numbers."""
    names = list(names)
    digits = [name.removeprefix("-") for name in names]
    if all(number.isascii() and number.isdigit() and len(number) < 19 for number in digits):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def _alike(names: Sequence[str]) -> list[str]:
    """Return the names of classes that a typing error may have made two."""
    folded = Counter(name.casefold() for name in names)
    return [name for name in names if folded[name.casefold()] > 1]


def _read(path: Path) -> _Table:
    """Read what a table lists.

    Raises:
        DataError: it cannot be read, or lines of it are wrong.
    """
    rows = read_rows(path, EXPECTED)
    first = next(rows, None)
    if first is None:
        raise DataError(f"{path} is empty", EXPECTED)
    columns = _find_columns(path, *first)
    taken = _Taken(path, columns)
    for line, cells in rows if columns.header else chain([first], rows):
        taken.take(line, cells)
    taken.problems.check()
    if not taken.lines:
        raise DataError(f"{path} names its columns and lists no images", EXPECTED)
    order: tuple[str, ...] = ("", "train", "val", "test")
    lines = {split: taken.lines[split] for split in order if split in taken.lines}
    return _Table(path, lines, (*columns.notices, *taken.notices()), columns.header)


def _find_columns(path: Path, line: int, cells: list[str]) -> _Columns:
    """Infer from the first line which column is which, and whether it is a header."""
    where = f"{path}, line {line}"
    names = [COLUMNS.get(cell.lower()) for cell in cells]
    # One such word may be a class, but hardly an image.
    if "path" not in names and len(cells) - names.count(None) < 2:
        if len(cells) == 1:
            other = next((mark for mark in (";", "\t", ",", "|") if mark in cells[0]), None)
            hint = f"its fields are separated by {other!r}" if other else EXPECTED
            raise DataError(f"{where} has no label, only {cells[0]!r}", hint)
        if len(cells) > 3:
            message = f"{where} has {len(cells)} fields and does not name the columns"
            raise DataError(message, "name them path, label and split in a first line")
        return _Columns(0, 1, 2 if len(cells) == 3 else None, len(cells), header=False)
    for column in ("path", "label", "split"):
        if names.count(column) > 1:
            same = [cell for cell, name in zip(cells, names, strict=True) if name == column]
            hint = "rename all but one of them"
            raise DataError(
                f"{where} has {len(same)} columns for the {column}: {shorten(same)}", hint
            )
        if column != "split" and column not in names:
            known = [word for word, name in COLUMNS.items() if name == column]
            message = f"{where} names no column {' or '.join(known)}"
            raise DataError(message, f"it has {shorten(cells)}")
    further = [cell or "(no name)" for cell, name in zip(cells, names, strict=True) if not name]
    columns = counted(len(further), "further column")
    notices = (f"left out: {columns}: {shorten(further)}",) if further else ()
    split = names.index("split") if "split" in names else None
    columns_of = names.index("path"), names.index("label"), split
    return _Columns(*columns_of, width=len(cells), header=True, notices=notices)


class _Taken:
    """What the lines of a table come to, taken in one by one."""

    def __init__(self, path: Path, columns: _Columns) -> None:
        self.lines: Lines = {}
        self.problems = _Problems(path)
        self._columns = columns
        self._prefix = f"{path.parent.absolute()}{os.sep}"
        # One tuple for each label and split, so that a million images share them.
        self._pairs: dict[tuple[str, str], tuple[str, str]] = {}
        self._given: dict[str, tuple[str, str]] = {}
        self._again: set[tuple[str, str]] = set()
        self._repeated: list[str] = []

    def take(self, line: int, cells: list[str]) -> None:
        """Take in a line, or note what is wrong with it."""
        columns = self._columns
        if any(cells[columns.width :]):
            what = "line has more fields than the first|lines have more fields than the first"
            self.problems.add(what, "", line, "quote a path or a label with a separator in it")
            return
        cells += [""] * (columns.width - len(cells))
        path, label, split = self._plain(cells[columns.path]), cells[columns.label], ""
        if not path:
            self.problems.add("line has no path|lines have no path", "", line)
        elif not label:
            self.problems.add("line has no label|lines have no label", "", line)
        elif columns.split is not None and not (split := self._split(cells[columns.split], line)):
            pass
        elif self._is_new(path, label, split, line):
            self.lines.setdefault(split, {}).setdefault(label, []).append((path, line))

    def _plain(self, path: str) -> str:
        """Normalize a path, so that two spellings of it compare equal."""
        path = path.removeprefix(self._prefix)
        return str(PurePosixPath(path)) if "./" in path or "//" in path else path

    def _split(self, name: str, line: int) -> str:
        """Return a split's own name; empty where there is none of that name."""
        if not name:
            hint = "give each line one, or remove the column to have some held out"
            self.problems.add("line has no split|lines have no split", "", line, hint)
        elif name.lower() not in SPLITS:
            hint = did_you_mean(name, list(SPLITS)) or "use train, val and test"
            self.problems.add("split is not known|splits are not known", name, line, hint)
        return SPLITS.get(name.lower(), "")

    def _is_new(self, path: str, label: str, split: str, line: int) -> bool:
        """Whether an image was not listed in that split before."""
        pair = self._pairs.setdefault((label, split), (label, split))
        before = self._given.get(path)
        if before is None:
            self._given[path] = pair
            return True
        if before[0] != label:
            kind = "image has two labels|images have two labels"
            self.problems.add(kind, f"{path}: {before[0]}, then {label}", line)
            return False
        if before is pair or (path, split) in self._again:
            self._repeated.append(f"{path} (line {line})")
            return False
        self._again.add((path, split))
        return True

    def notices(self) -> list[str]:
        """Report what was passed by."""
        if not self._repeated:
            return []
        lines = counted(len(self._repeated), "line")
        return [f"left out: {lines} with an image listed before: {shorten(self._repeated)}"]
