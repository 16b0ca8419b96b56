"""Tables of images: CSV, TSV, text lists or JSON lines of path, label and optionally split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from zoo.data.columns import EXPECTED, TableColumns, find_columns
from zoo.data.groups import groups_by
from zoo.data.image_paths import AmbiguousImage
from zoo.data.names import SPLITS, nfc, sort_classes
from zoo.data.scan import shorten
from zoo.data.schema import Schema
from zoo.data.split import FileSplit, ImageData
from zoo.data.split_choice import choose_split, fingerprint, listed
from zoo.data.table import names_columns, read_rows, sample_rows
from zoo.errors import DataError, counted, did_you_mean
from zoo.files import NotRegular
from zoo.options.columns import Columns
from zoo.tasks.classification.data.hold_out import (
    HoldOut,
    SplitName,
    check_known,
    compare_with_train,
    complete_splits,
    file_split,
)
from zoo.tasks.classification.data.labels import several_labels
from zoo.tasks.classification.data.scan import Images

# By split (empty without such a column) and class: path and line number of each image.
Lines = dict[str, dict[str, list[tuple[str, int]]]]


def open_table(path: Path, how: HoldOut, *, columns: Columns | None = None) -> ImageData:
    """Index the images of a table, and split them for training.

    Args:
        path: a table in UTF-8 with columns of paths, labels and optionally splits. Paths are
            relative to the file's folder, or to one around or below it in which most are found.
        how: to hold out validation images, where the table has no such split.
        columns: by role; those that are not given are inferred.

    Raises:
        DataError: it cannot be trained on; names the invalid lines.
    """
    table = _read(path, columns, how.group)
    if not table.plain and "train" not in table.lines:
        message = f"{path} lists images of {listed(table.lines)}, but none of train"
        raise DataError(message, "assign lines to the split train")
    notices = [*table.notices]
    images = table.index(table.lines)
    parts = {"train": images.get("train") or images[""]}
    train_name = table.split_name("train")
    _check_classes(parts["train"], train_name)
    for split in [split for split in ("val", "test") if split in images]:
        parts[split] = images[split]
        notices += compare_with_train(
            parts["train"], parts[split], table.split_name(split), train_name
        )
    reason = f"{listed(parts)} as listed"
    groups = table.groups
    if how.group_by is not None:
        every = (name for part in parts.values() for images in part.values() for name, _ in images)
        groups = groups_by(how.group_by, every, path)
    own_val = "val" in parts
    origin, further = complete_splits(path, parts, how, train_name, groups)
    notices += further
    classes = tuple(parts["train"])
    if duplicates := _differing_in_case(classes):
        notices.append(f"classes differ in case alone: {shorten(duplicates)}")
    parts = {split: parts[split] for split in ("train", "val", "test") if split in parts}
    return ImageData(
        name=path.name,
        schema=Schema(classes),
        splits={
            split: file_split(split, path.parent, parts[split], classes, groups) for split in parts
        },
        fingerprint=fingerprint(parts),
        notices=tuple(notices),
        reason=origin or reason,
        own_val=own_val,
        root=path.parent,
    )


def _check_classes(train: Images, name: SplitName) -> None:
    if len(train) == 1:
        message = f"{name.full} has only one class, {next(iter(train))}; at least two are needed"
        raise DataError(message, EXPECTED)


def open_table_split(
    path: Path, classes: Sequence[str], split: str | None = None, columns: Columns | None = None
) -> FileSplit:
    """Index the images of a table to evaluate a model on.

    Args:
        path: a table as for `open_table`.
        classes: of the model, in its order; labels are matched by name.
        split: name; None for `test`, else `val`. A table without a column `split` has one, `all`.
        columns: by role; those that are not given are inferred.

    Raises:
        DataError: there is no such split, lines of it are invalid, or a class is unknown to the
            model.
    """
    table = _read(path, columns, None)
    name = ""
    if not table.plain:
        name = choose_split(path, {split: split for split in table.lines}, split)
    elif split not in (None, "all"):
        message = f"{path} has no split {split!r}: it has no column split"
        raise DataError(message, "leave the split out to evaluate on all images")
    check_known(list(table.lines[name]), classes, table.split_name(name).full)
    # Images of the other splits need not exist.
    images = table.index([name])[name]
    return file_split(name or "all", path.parent, images, classes)


@dataclass
class _Problems:
    """Errors of a table, by kind: number of lines, and the first of them."""

    path: Path
    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, list[str]] = field(default_factory=dict)
    hint: str = ""

    def add(self, kind: str, item: str, line: int, hint: str | None = None) -> None:
        """Record a line; `kind` has singular and plural, as in `path is empty|paths are empty`."""
        self.counts[kind] = self.counts.get(kind, 0) + 1
        shown = self.first.setdefault(kind, [])
        if len(shown) < 5:
            shown.append(f"{item} (line {line})" if item else f"line {line}")
        self.hint = self.hint or hint or ""

    def check(self) -> None:
        """Raise one `DataError` that lists all recorded lines, if any."""
        if not self.counts:
            return
        parts = []
        for kind, count in self.counts.items():
            one, _, many = kind.partition("|")
            more = f" and {count - 5:,} more" if count > 5 else ""
            parts.append(f"{counted(count, one, many)}: {', '.join(self.first[kind])}{more}")
        total = sum(self.counts.values())
        lines = f"{counted(total, 'line')} are invalid; " if len(parts) > 1 else ""
        raise DataError(f"{self.path}: {lines}{'; '.join(parts)}", self.hint or EXPECTED)


@dataclass(frozen=True)
class _Table:
    """The lines of a table, before images are read.

    Args:
        path: of the table.
        lines: by split and class.
        columns: of the table.
        notices: skipped lines and columns, one line each.
        group_of: group of each path as listed; empty without a column of groups.
        groups: the same by path as found; filled by `index`.
    """

    path: Path
    lines: Lines
    columns: TableColumns
    notices: tuple[str, ...]
    group_of: Mapping[str, str]
    groups: dict[str, str] = field(default_factory=dict)

    @property
    def plain(self) -> bool:
        return "" in self.lines

    def split_name(self, split: str) -> SplitName:
        """Return the names of a split for messages."""
        return (
            SplitName(str(self.path), "")
            if self.plain
            else SplitName(f"{split} of {self.path}", split)
        )

    def index(self, splits: Iterable[str]) -> dict[str, Images]:
        """Return the images of some splits with their sizes, sorted by class and name."""
        problems = _Problems(self.path)
        images: dict[str, Images] = {}
        for split in splits:
            classes = self.lines[split]
            images[split] = {
                label: sorted(self._files(classes[label], problems), key=lambda each: nfc(each[0]))
                for label in sort_classes(classes)
            }
        problems.check()
        return images

    def _files(
        self, images: list[tuple[str, int]], problems: _Problems
    ) -> Iterator[tuple[str, int]]:
        for path, line in images:
            try:
                found = self.columns.finder.find(path)
                if self.group_of:
                    self.groups[found[0]] = self.group_of[path]
                yield found
            except FileNotFoundError:
                hint = self._missing_hint(line)
                problems.add("image does not exist|images do not exist", path, line, hint)
            except IsADirectoryError:
                problems.add("path is a folder|paths are folders", path, line)
            except NotRegular:
                kind = "path is not a regular file|paths are not regular files"
                problems.add(kind, path, line)
            except AmbiguousImage as several:
                item = f"{path}: {several}"
                problems.add("image is found twice|images are found twice", item, line)
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or str(error)
                item = f"{path!r}, {reason}"
                problems.add("image cannot be read|images cannot be read", item, line)

    def _missing_hint(self, line: int) -> str:
        if line == 1 and not self.columns.header:
            return "a header names the columns path, label and split"
        return f"paths are relative to {self.path.parent.absolute()}"


def _differing_in_case(names: Sequence[str]) -> list[str]:
    """Return class names that differ in case alone, a likely typing error."""
    folded = Counter(name.casefold() for name in names)
    return [name for name in names if folded[name.casefold()] > 1]


def _read(path: Path, given: Columns | None, group: str | None) -> _Table:
    """Read a table.

    Args:
        path: of the table.
        given: columns as given.
        group: column of groups; None without.

    Raises:
        DataError: it cannot be read, or lines are invalid.
    """
    sample = sample_rows(path, EXPECTED)
    if not sample:
        raise DataError(f"{path} is empty", EXPECTED)
    columns = find_columns(path, sample, given, names_columns(path), labels=True)
    at = None if group is None else columns.position(path, "group", group)
    collector = _LineCollector(path, columns, len(sample[0][1]), at)
    rows = read_rows(path, EXPECTED)
    if columns.header:
        next(rows)
    for line, cells in rows:
        collector.add(line, cells)
    collector.check_labels()
    collector.problems.check()
    if not collector.lines:
        raise DataError(f"{path} lists no images", EXPECTED)
    order: tuple[str, ...] = ("", "train", "val", "test")
    lines = {split: collector.lines[split] for split in order if split in collector.lines}
    notices = [*columns.notices, *_skipped_columns(columns, at), *collector.notices()]
    return _Table(path, lines, columns, tuple(notices), collector.groups)


def _skipped_columns(columns: TableColumns, group: int | None) -> list[str]:
    used = (columns.image, columns.label, columns.split, group)
    further = [name or "(no name)" for at, name in enumerate(columns.names) if at not in used]
    if not further:
        return []
    return [f"skipped: {counted(len(further), 'further column')}: {shorten(further)}"]


class _LineCollector:
    """Collects and validates the lines of a table.

    Args:
        path: of the table.
        columns: of the table.
        width: number of fields of its first line.
        group: position of the column of groups; None without.
    """

    def __init__(self, path: Path, columns: TableColumns, width: int, group: int | None) -> None:
        self.lines: Lines = {}
        self.groups: dict[str, str] = {}
        self._group = group
        self.problems = _Problems(path)
        self._columns, self._width = columns, width
        # Interned: one tuple for each label and split, shared by up to millions of images.
        self._pairs: dict[tuple[str, str], tuple[str, str]] = {}
        self._first_pairs: dict[str, tuple[str, str]] = {}
        self._other_splits: set[tuple[str, str]] = set()
        self._repeated: list[str] = []

    def add(self, line: int, cells: list[str]) -> None:
        """Add a line, or record its error."""
        columns = self._columns
        assert columns.label is not None
        if any(cells[self._width :]):
            kind = "line has more fields than the first|lines have more fields than the first"
            self.problems.add(kind, "", line, "quote a path or a label with a separator in it")
            return
        cells += [""] * (self._width - len(cells))
        path, label = columns.finder.normalize(cells[columns.image]), nfc(cells[columns.label])
        split = ""
        if not path:
            self.problems.add("line has no path|lines have no path", "", line)
        elif not label:
            self.problems.add("line has no label|lines have no label", "", line)
        elif columns.split is not None and not (split := self._split(cells[columns.split], line)):
            pass
        elif self._group is not None and not cells[self._group]:
            self.problems.add("line has no group|lines have no group", "", line)
        elif self._is_new(path, label, split, line):
            if self._group is not None:
                self.groups[path] = nfc(cells[self._group])
            self.lines.setdefault(split, {}).setdefault(label, []).append((path, line))

    def _split(self, name: str, line: int) -> str:
        """Return the canonical name of a split; empty if it is unknown."""
        split = self._columns.read_split(name) or ""
        if not name:
            hint = "give each line a split, or remove the column to hold out a share"
            self.problems.add("line has no split|lines have no split", "", line, hint)
        elif not split:
            hint = did_you_mean(name, list(SPLITS)) or "use train, val and test"
            self.problems.add("split is unknown|splits are unknown", name, line, hint)
        return split

    def check_labels(self) -> None:
        """Record cells with several labels."""
        labels = dict.fromkeys(label for classes in self.lines.values() for label in classes)
        hint = "an image has one class: give one label; join the words of a name by _"
        for label in several_labels(labels):
            for classes in self.lines.values():
                for _, line in classes.get(label, ()):
                    kind = "line has several labels|lines have several labels"
                    self.problems.add(kind, label, line, hint)

    def _is_new(self, path: str, label: str, split: str, line: int) -> bool:
        """Return whether an image is listed in a split for the first time."""
        pair = self._pairs.setdefault((label, split), (label, split))
        previous = self._first_pairs.get(path)
        if previous is None:
            self._first_pairs[path] = pair
            return True
        if previous[0] != label:
            kind = "image has two labels|images have two labels"
            self.problems.add(kind, f"{path}: {previous[0]}, then {label}", line)
            return False
        if previous is pair or (path, split) in self._other_splits:
            self._repeated.append(f"{path} (line {line})")
            return False
        self._other_splits.add((path, split))
        return True

    def notices(self) -> list[str]:
        """Report skipped lines."""
        if not self._repeated:
            return []
        lines = counted(len(self._repeated), "line")
        return [f"skipped: {lines} with an image listed before: {shorten(self._repeated)}"]
