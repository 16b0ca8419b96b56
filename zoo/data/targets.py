"""Images with targets of any kind, from tables and from datasets of the user.

The data side of a custom task: the task supplies the readers of targets; splits, held-out samples,
fingerprints and error reports are shared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from zoo.data.columns import TableColumns, find_columns
from zoo.data.image_paths import AmbiguousImage
from zoo.data.names import SPLITS, nfc
from zoo.data.scan import shorten
from zoo.data.schema import Schema
from zoo.data.split import FileSplit, ImageData, Split, check_fraction, draw_held_out
from zoo.data.split_choice import choose_split, describe_no_validation, fingerprint
from zoo.data.table import is_table, names_columns, read_rows, sample_rows
from zoo.data.user_dataset import DatasetSplit, datasets_by_split, read_item, select_dataset
from zoo.errors import DataError, UsageError, counted, did_you_mean
from zoo.files import NotRegular
from zoo.options.columns import Columns

ReadRow = Callable[[Mapping[str, str]], Any]
ReadTarget = Callable[[Any], Any]
TargetSplit = TypeVar("TargetSplit", FileSplit, DatasetSplit)

WHOLE = "all"
GIVEN = "splits as given"
# Faults that an error lists; it counts the others.
MAX_FAULTS = 10
EXPECTED = "name the columns in the first line: path, those of the targets, and optionally split"


def target_columns(path: Path, columns: Columns | None = None) -> list[str]:
    """Return the names of the target columns of a table: all but those of images and splits.

    Args:
        path: a table whose first row names the columns.
        columns: as given; those that are not are `path` and `split`, or inferred.

    Raises:
        DataError: it cannot be read; a column is missing; or a name is repeated.
    """
    table = _find_columns(path, columns)
    return [
        nfc(name) for at, name in enumerate(table.names) if at not in (table.image, table.split)
    ]


def _find_columns(path: Path, columns: Columns | None) -> TableColumns:
    if not is_table(path):
        raise DataError(f"{path} is not a table, such as CSV or TSV", EXPECTED)
    sample = sample_rows(path, EXPECTED)
    header = sample[0][1] if sample else []
    wrong = DataError(f"{path} names the columns {', '.join(header) or 'nothing'}", EXPECTED)
    if not sample or len(set(header)) < len(header):
        raise wrong
    table = find_columns(path, sample, columns, names_columns(path), labels=False)
    if not table.header or len(header) < 2 + (table.split is not None):
        raise wrong
    return table


def read_table(
    path: Path, read_row: ReadRow, columns: Columns | None = None
) -> dict[str, FileSplit]:
    """Read a table of images.

    Args:
        path: a table whose first row names the columns; paths of images are relative to its folder.
        read_row: converts the cells of a line, by column, to a target; raises `ValueError` or
            `DataError` for a bad cell, `KeyError` for a missing column.
        columns: of images and splits, as for `target_columns`.

    Returns:
        Splits by name; `all` without a column of splits.

    Raises:
        DataError: it cannot be read, or lines are invalid; lists the first of them.
    """
    table = _find_columns(path, columns)
    rows = read_rows(path, EXPECTED)
    header = [nfc(name) for name in next(rows)[1]]
    listed: dict[str, list[tuple[str, Any]]] = {}
    errors = []
    for line, cells in rows:
        try:
            if len(cells) != len(header):
                raise DataError(f"it has {len(cells)} fields, and the first line {len(header)}")
            target = read_row(dict(zip(header, cells, strict=True)))
            split = _split_of(table, cells)
            listed.setdefault(split, []).append((_find_image(table, cells), target))
        except KeyError as error:
            raise DataError(f"{path} has no column {error}", EXPECTED) from error
        except (ValueError, DataError) as error:
            errors.append(f"line {line}: {getattr(error, 'message', error)}")
    if errors or not listed:
        faults = shorten(errors, MAX_FAULTS, "; ")
        raise DataError(f"{path}: {faults or 'it lists no images'}", EXPECTED)
    return {
        split: FileSplit(split, path.parent, *zip(*images, strict=True))
        for split, images in listed.items()
    }


def _find_image(table: TableColumns, cells: Sequence[str]) -> str:
    name = cells[table.image]
    try:
        return table.finder.find(table.finder.normalize(name))[0]
    except AmbiguousImage as error:
        raise DataError(f"{name!r} is found twice: {error}") from error
    except FileNotFoundError as error:
        raise DataError(f"there is no file {name!r}") from error
    except (IsADirectoryError, NotRegular) as error:
        raise DataError(f"{name!r} is not a regular file") from error
    except OSError as error:
        raise DataError(f"cannot read {name!r}: {error.strerror or error}") from error


def _split_of(table: TableColumns, cells: Sequence[str]) -> str:
    if table.split is None:
        return WHOLE
    name = cells[table.split]
    split = table.read_split(name)
    if split is None:
        hint = did_you_mean(name, list(SPLITS)) or "use train, val and test"
        raise DataError(f"its split is {name!r}; {hint}")
    return split


def read_dataset(name: str, dataset: Any, read_target: ReadTarget) -> DatasetSplit:
    """Wrap a `Dataset` as a split, and read the target of every item.

    Args:
        name: of the split.
        dataset: its items are `(image, target)`.
        read_target: converts the target of an item to that of the task; raises for a bad one.

    Raises:
        DataError: items are invalid; lists the first of them.
        UsageError: it yields batches, not items.
    """
    if not hasattr(dataset, "__getitem__"):
        raise UsageError(f"a {type(dataset).__name__} has no single items", "give its Dataset")
    targets, errors = [], []
    for index in range(len(dataset)):
        try:
            targets.append(read_item(dataset, index, read_target)[1])
        except DataError as error:
            errors.append(f"item {index}: {error.message}")
    if errors:
        raise DataError(f"data[{name!r}]: {shorten(errors, MAX_FAULTS, '; ')}")
    return DatasetSplit(name, dataset, tuple(range(len(targets))), tuple(targets), read_target)


def open_splits(
    source: Any, read_row: ReadRow, read_target: ReadTarget, columns: Columns | None = None
) -> dict[str, Any]:
    """Open every split of a table, a `Dataset`, or a mapping of splits.

    Args:
        source: of the data.
        read_row: as for `read_table`.
        read_target: as for `read_dataset`.
        columns: of a table, as for `target_columns`.

    Raises:
        DataError, UsageError: as `read_table` and `read_dataset`.
    """
    if source is None:
        raise UsageError("there is no demonstration set for this task", "give --data FILE.csv")
    if isinstance(source, (str, Path)):
        return read_table(Path(source), read_row, columns)
    parts = datasets_by_split(source)
    return {name: read_dataset(name, part, read_target) for name, part in parts.items()}


def open_one(
    source: Any,
    read_row: ReadRow,
    read_target: ReadTarget,
    split: str | None = None,
    columns: Columns | None = None,
) -> Split:
    """Open one split to evaluate on.

    Args:
        source: a table, a `Dataset`, which is one split, or a mapping of splits.
        read_row: as for `read_table`.
        read_target: as for `read_dataset`.
        split: name; None for `test`, else `val`; a table without a column `split` is one split.
        columns: of a table, as for `target_columns`.

    Raises:
        DataError: there is no such split; or as `open_splits`.
    """
    if source is not None and not isinstance(source, (str, Path)):
        return read_dataset(*select_dataset(source, split), read_target)
    splits = open_splits(source, read_row, read_target, columns)
    if WHOLE not in splits or split not in (None, WHOLE):
        split = choose_split(str(source), {name: name for name in splits}, split)
    return splits[split or WHOLE]  # type: ignore[no-any-return]


def hold_out(splits: Mapping[str, Any], seed: int, fraction: float) -> tuple[dict[str, Any], str]:
    """Return `train`, and `val` and `test` if there are such, and a description of their origin.

    Args:
        splits: as opened; without `val`, a share of `train` or `all` is held out.
        seed: of the draw.
        fraction: share to hold out, between 0 and 1; 0 for none.

    Raises:
        DataError: there are fewer than two samples to train on.
        UsageError: the fraction is not between 0 and 1.
    """
    check_fraction(fraction)
    train = splits.get("train", splits.get(WHOLE))
    if train is None or len(train) < 2:
        hint = "at least two are needed, one to train and one to validate"
        raise DataError(f"{counted(len(train or ()), 'image is', 'images are')} to train on", hint)
    others = {name: split for name, split in splits.items() if name in ("val", "test")}
    reason = GIVEN
    if "val" not in others and not fraction:
        reason = describe_no_validation()
    elif "val" not in others:
        drawn = draw_held_out(_names(train), seed, fraction)
        remaining = [row for row in range(len(train)) if row not in drawn]
        others["val"] = _select("val", train, sorted(drawn))
        train = _select("train", train, remaining)
        reason = f"{100 * fraction:g} % held out by seed {seed}"
    parts = {"train": train, **others}
    return {name: parts[name] for name in ("train", "val", "test") if name in parts}, reason


def image_data(source: Any, splits: Mapping[str, Any], schema: Schema, reason: str) -> ImageData:
    """Return splits as `BaseTask.open_data` does.

    Args:
        source: of the splits.
        splits: of `hold_out`, with the targets of the loss.
        schema: of the targets.
        reason: origin of the splits.
    """
    files = isinstance(source, (str, Path))
    parts = {name: _sizes(split) for name, split in splits.items()}
    return ImageData(
        name=Path(source).name if files else "your Dataset",
        schema=schema,
        splits=dict(splits),
        fingerprint=fingerprint(parts),
        notices=(),
        reason=reason,
        deterministic=files,
        own_val=reason == GIVEN,
        root=Path(source).parent if files else None,
    )


@dataclass(frozen=True)
class _Composed:
    """Two readers in sequence; picklable for worker processes."""

    first: ReadTarget
    then: ReadTarget

    def __call__(self, target: Any) -> Any:
        return self.then(self.first(target))


def map_targets(split: TargetSplit, function: ReadTarget) -> TargetSplit:
    """Apply a function to every target of a split, such as scaling."""
    targets = tuple(map(function, split.targets))
    if isinstance(split, DatasetSplit):
        return replace(split, targets=targets, read_target=_Composed(split.read_target, function))
    return replace(split, targets=targets)


def _names(split: FileSplit | DatasetSplit) -> list[str]:
    """Return a unique name for each sample of a split."""
    return list(map(str, split.indices if isinstance(split, DatasetSplit) else split.paths))


def _sizes(split: FileSplit | DatasetSplit) -> dict[str, list[tuple[str, int]]]:
    """Return name and size in bytes of each sample by target, for the fingerprint."""
    parts: dict[str, list[tuple[str, int]]] = {}
    for index, (name, label) in enumerate(zip(_names(split), split.targets, strict=True)):
        size = split.path(index).stat().st_size if isinstance(split, FileSplit) else 0
        parts.setdefault(str(label), []).append((name, size))
    return parts


def _select(name: str, split: TargetSplit, rows: Sequence[int]) -> TargetSplit:
    """Return the samples at some positions as a split."""
    targets = tuple(split.targets[row] for row in rows)
    if isinstance(split, DatasetSplit):
        indices = tuple(split.indices[row] for row in rows)
        return replace(split, name=name, targets=targets, indices=indices)
    paths = tuple(split.paths[row] for row in rows)
    return replace(split, name=name, targets=targets, paths=paths)
