"""Find the columns of a table: images, labels and splits, by their names and what they hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from zoo.data.formats import is_image
from zoo.data.image_paths import ImageFinder
from zoo.data.names import nfc, split_of
from zoo.data.scan import shorten
from zoo.data.split_choice import listed
from zoo.data.table import Row
from zoo.errors import DataError
from zoo.options.columns import NONE, Columns

# Usual names, without case and separators; the first ones stand in messages.
# fmt: off
IMAGES = (
    "path", "file", "filename", "image", "paths", "files", "filenames", "filepath", "filepaths",
    "images", "img", "imgs", "imagepath", "imagepaths", "imgpath", "imagefile", "imgfile",
    "imagename", "imgname", "imagefilename", "imageid", "imgid", "relativepath", "uri",
)
LABELS = (
    "label", "class", "labels", "classes", "category", "categories", "cat", "cats", "target",
    "targets", "classname", "classlabel", "labelname", "categoryname", "imagelabel", "y",
)
SPLITS = ("split", "splits", "set", "subset", "partition", "usage", "phase", "fold")
# fmt: on
TRUE, FALSE = ("true", "t", "1", "1.0", "yes", "y"), ("false", "f", "0", "0.0", "no", "n")
# Share of the sampled rows from which a column holds images, or splits.
MOST_IMAGES, MOST_SPLITS = 0.5, 0.8
PROBED = 50
EXPECTED = "list one image per line, as path,label or path,label,split"


@dataclass(frozen=True)
class TableColumns:
    """The columns of a table, by position.

    Args:
        image: of the paths.
        label: of the labels; None if it was not asked for.
        split: of the splits; None without one.
        names: of all columns; their numbers from 1 without a header.
        header: whether the first row names them.
        finder: of the images.
        boolean: values of true and false where the split column holds booleans; else empty.
        inferred: whether a name is not a usual one.
    """

    image: int
    label: int | None
    split: int | None
    names: tuple[str, ...]
    header: bool
    finder: ImageFinder
    boolean: tuple[str, str] | tuple[()] = ()
    inferred: bool = False

    @property
    def notices(self) -> list[str]:
        """Columns that were inferred or skipped, and searched folders; one line each."""
        roles = {"image": self.image, "label": self.label, "split": self.split}
        named = {role: self.names[at] for role, at in roles.items() if at is not None}
        lines = []
        if self.inferred:
            lines.append(f"columns: {', '.join(f'{role} {name}' for role, name in named.items())}")
        if self.boolean:
            true, false = self.boolean
            lines.append(f"column {self.names[self.split or 0]}: true is {true}, false is {false}")
        if self.finder.prefix:
            lines.append(f"paths are read without {self.finder.prefix}")
        if self.finder.bases != ("",):
            lines.append(f"paths are relative to {listed(b or './' for b in self.finder.bases)}")
        return lines

    def position(self, path: Path, role: str, name: str) -> int:
        """Return the position of a column of a further role, by name or number from 1.

        Raises:
            DataError: there is none.
        """
        return named_column(path, self.names, f"{role} ", name)

    def read_split(self, value: str) -> str | None:
        """Return the split that a value stands for; None for any other value."""
        if self.boolean:
            value = value.lower()
            return self.boolean[0] if value in TRUE else self.boolean[1] if value in FALSE else None
        return split_of(value)


def named_column(path: Path, names: Sequence[str], option: str, name: str) -> int:
    """Return the position of a column by name, or by number from 1.

    Args:
        path: of the table, for messages.
        names: of its columns.
        option: that gives the name, for messages.
        name: of the column.

    Raises:
        DataError: there is none, or there are several.
    """
    matches = [at for at, other in enumerate(names) if nfc(other) == nfc(name)]
    if not matches and name.isdecimal() and 0 < int(name) <= len(names):
        matches = [int(name) - 1]
    if len(matches) != 1:
        count = "no column" if not matches else f"{len(matches)} columns"
        message = f"{path} has {count} {name!r}, of --{option}{name}"
        raise DataError(message, f"it has {shorten(names, 10)}")
    return matches[0]


def usual(name: str, words: Sequence[str]) -> bool:
    """Return whether a column has one of the usual names of its role."""
    return _squashed(name) in words


def find_columns(
    path: Path, sample: Sequence[Row], given: Columns | None, header: bool, labels: bool
) -> TableColumns:
    """Find the columns of a table.

    Args:
        path: of the table.
        sample: its first row, and others.
        given: columns as given; those that are not are inferred.
        header: whether the first row certainly names the columns.
        labels: whether a column of labels is needed.

    Raises:
        DataError: a column is missing, or several fit; names them.
    """
    return _Search(path, sample, given or Columns(), header, labels).find()


class _Search:
    def __init__(
        self, path: Path, sample: Sequence[Row], given: Columns, header: bool, labels: bool
    ) -> None:
        self.path, self.given, self.labels = path, given, labels
        self.line, first = sample[0]
        self.width, self.first = len(first), first[0]
        self.finder = ImageFinder(path.parent)
        rows = [row for _, row in sample[1:]]
        self.header = header or self._is_header(first, rows)
        self.names = tuple(first) if self.header else tuple(str(n + 1) for n in range(self.width))
        rows = rows if self.header else [first, *rows]
        self.columns = [
            [row[at] if at < len(row) else "" for row in rows] for at in range(self.width)
        ]
        self.inferred = False

    def find(self) -> TableColumns:
        """Return the columns, searched for in the order image, split, label."""
        if self.width == 1 and self.labels:
            self._refuse(f"has no label, only {self.first!r}", EXPECTED)
        image = self._image()
        split, boolean = self._split([at for at in range(self.width) if at != image])
        rest = [at for at in range(self.width) if at not in (image, split)]
        label = self._label(rest) if self.labels else None
        return TableColumns(
            image, label, split, self.names, self.header, self.finder, boolean, self.inferred
        )

    def _is_header(self, first: Sequence[str], rows: Sequence[Sequence[str]]) -> bool:
        given = [name for name in vars(self.given).values() if name not in (None, NONE)]
        if any(nfc(name) in map(nfc, first) for name in given):
            return True
        if given and all(name.isdecimal() for name in given):
            return False
        if any(is_image(cell) or self.finder.exact(cell) for cell in first):
            return False
        known = [any(usual(cell, words) for words in (IMAGES, LABELS, SPLITS)) for cell in first]
        if sum(known) > 1 or any(usual(cell, IMAGES) for cell in first):
            return True
        below = [
            [row[at] for row in rows if at < len(row) and row[at]][:PROBED]
            for at in range(len(first))
        ]
        # A first cell that is unlike all below it is a name.
        return any(map(self._unlike, first, below))

    def _unlike(self, cell: str, below: Sequence[str]) -> bool:
        """Return whether cells are images, or splits, below one that is not."""
        if not below or cell.isdecimal():
            return False
        if any(all(map(test, below)) and not test(cell) for test in (is_image, split_of)):
            return True
        finder = self.finder.searching([self.finder.normalize(each) for each in below])
        return all(map(finder.finds, map(finder.normalize, below))) and not finder.finds(cell)

    def _refuse(self, problem: str, hint: str) -> NoReturn:
        raise DataError(f"{self.path}, line {self.line} {problem}", hint)

    def _named(self, role: str, name: str) -> int:
        return named_column(self.path, self.names, f"columns {role}=", name)

    def _probed(self, at: int) -> list[str]:
        """Return some of the values of a column, as normalized paths."""
        values = [value for value in self.columns[at] if value]
        chosen = values[:: max(1, len(values) // PROBED)][:PROBED]
        return [self.finder.normalize(value) for value in chosen]

    def _image(self) -> int:
        if self.given.image is not None:
            at = self._named("image", self.given.image)
            self._search_folders(at)
            return at
        usual_at = [at for at in range(self.width) if usual(self.names[at], IMAGES)]
        order = usual_at + [at for at in range(self.width) if at not in usual_at]
        tests: list[Callable[[str], bool]] = [self.finder.exact, self.finder.finds]
        for test in tests:
            if fits := [at for at in order if self._share(at, test) >= MOST_IMAGES]:
                at = self._chosen(fits, usual_at)
                self._search_folders(at)
                return at
        looks = [at for at in order if self._share(at, is_image) >= MOST_IMAGES]
        for at in dict.fromkeys(looks + usual_at):
            if self._search_folders(at):
                return self._chosen([at], usual_at)
        if looks or usual_at:
            return (looks or usual_at)[0]
        for at in order:
            if self._search_folders(at):
                return self._chosen([at], usual_at)
        if self.header:
            self._missing("image", IMAGES[:4])
        return 0

    def _chosen(self, fits: Sequence[int], usual_at: Sequence[int]) -> int:
        """Return one of the columns that hold images: one with a usual name, or the only one."""
        named = [at for at in fits if at in usual_at]
        choice = named or fits
        contents = {tuple(self._probed(at)) for at in choice}
        if len(contents) > 1:
            self._several("image", choice)
        self.inferred |= self.header and not named
        return choice[0]

    def _share(self, at: int, test: Callable[[str], bool]) -> float:
        values = self._probed(at)
        return sum(map(test, values)) / len(values) if values else 0.0

    def _search_folders(self, at: int) -> bool:
        """Search other folders for the images of a column; return whether most are found."""
        self.finder = self.finder.searching(self._probed(at))
        return self._share(at, self.finder.finds) >= MOST_IMAGES

    def _split(self, rest: Sequence[int]) -> tuple[int | None, tuple[str, str] | tuple[()]]:
        if self.given.split == NONE or (self.given.split is None and len(rest) < 2 and self.labels):
            return None, ()
        if self.given.split is not None:
            at = self._named("split", self.given.split)
            return at, self._booleans(at)
        labelled = {at for at in rest if self.labels and usual(self.names[at], LABELS)}
        if self.given.label is not None:
            labelled.add(self._named("label", self.given.label))
        fits = [at for at in rest if at not in labelled and self._holds_splits(at)]
        if not fits and not self.header and self.width == 3:
            fits = [at for at in rest if at == 2]
        if len(fits) > 1:
            self._several("split", fits)
        if fits:
            self.inferred |= self.header and not usual(self.names[fits[0]], SPLITS[:1])
            return fits[0], self._booleans(fits[0])
        for at in rest if self.labels else ():
            if self.header and usual(self.names[at], SPLITS) and any(self.columns[at]):
                values = shorten(dict.fromkeys(filter(None, self.columns[at])), 3)
                hint = (
                    f"write train, val and test in it, or give --columns split={NONE} to ignore it"
                )
                self._refuse(f"names a column {self.names[at]}, which holds {values}", hint)
        return None, ()

    def _holds_splits(self, at: int) -> bool:
        values = [value for value in self.columns[at] if value]
        if not values:
            return False
        if self.labels and self._booleans(at):
            return True
        # Values of a column that is named split are checked line by line.
        if self.header and usual(self.names[at], SPLITS[:2]) and any(map(split_of, values)):
            return True
        return sum(map(bool, map(split_of, values))) >= MOST_SPLITS * len(values)

    def _booleans(self, at: int) -> tuple[str, str] | tuple[()]:
        """Return the splits of true and false in a column such as `is_valid`; else ()."""
        values = {value.lower() for value in self.columns[at] if value}
        split = split_of(re.sub(r"^is", "", _squashed(self.names[at])))
        if split is None or not values or not values.issubset((*TRUE, *FALSE)):
            return ()
        return (split, "val" if split == "train" else "train")

    def _label(self, rest: Sequence[int]) -> int:
        if self.given.label is not None:
            return self._named("label", self.given.label)
        named = [at for at in rest if self.header and usual(self.names[at], LABELS)]
        if len(named) > 1:
            return self._same_labels(named)
        if named:
            self._refuse_indicators(named[0], rest)
            return named[0]
        rest = [at for at in rest if any(self.columns[at])]
        if not self.header and self.width > 3:
            self._refuse(
                f"has {self.width} fields and does not name the columns",
                "add a header that names them path, label and split; or give their numbers: "
                "--columns image=1,label=2",
            )
        if len(rest) == 1:
            self.inferred |= self.header
            return rest[0]
        if not self.header and rest:
            return rest[0]
        if rest:
            self._refuse_indicators(rest[0], rest)
        self._missing("label", LABELS[:2])

    def _same_labels(self, named: Sequence[int]) -> int:
        """Return the column of names among several that number and name the same classes."""
        pairs = set(zip(*(self.columns[at] for at in named), strict=True))
        values = [set(self.columns[at]) for at in named]
        text = [at for at in named if not all(map(_is_number, self.columns[at]))]
        if len(text) != 1 or len(pairs) < 2 or any(len(each) != len(pairs) for each in values):
            self._several("label", named)
        self.inferred = True
        return text[0]

    def _refuse_indicators(self, label: int, rest: Sequence[int]) -> None:
        """Refuse columns of 0 and 1 that are one class each, such as `cat,dog`."""
        flags = [at for at in rest if {*self.columns[at]} <= {"0", "1", "0.0", "1.0"}]
        rows = zip(*(self.columns[at] for at in flags), strict=True)
        if label in flags and len(flags) > 1 and {sum(map(float, row)) for row in rows} == {1.0}:
            names = shorten(self.names[at] for at in flags)
            hint = "write the name of the class of each image in one column"
            self._refuse(f"has a column of 0 and 1 for each class: {names}", hint)

    def _missing(self, role: str, words: Sequence[str]) -> NoReturn:
        names = shorten([name or "(no name)" for name in self.names], 10)
        hint = f"it has {names}; choose one by --columns {role}=NAME"
        self._refuse(f"names no column {' or '.join(words)}", hint)

    def _several(self, role: str, fits: Sequence[int]) -> NoReturn:
        names = [self.names[at] for at in fits]
        role_name = "path" if role == "image" else role
        hint = "rename all but one of them"
        if self.names.count(names[0]) == 1:  # else the option does not choose either
            hint += f", or give --columns {role}={names[0]}"
        self._refuse(f"has {len(fits)} columns for the {role_name}: {shorten(names)}", hint)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"-?\d+(\.0*)?", text) is not None


def _squashed(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.casefold())
