"""Images with targets of any kind, from tables and from datasets of the user.

The data side of a custom task: the task supplies the readers of targets; splits, held-out samples,
fingerprints and error reports are shared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from zoo.data.names import SPLITS, nfc, split_of
from zoo.data.schema import Schema
from zoo.data.split import FileSplit, ImageData, Split, check_fraction, draw_held_out
from zoo.data.splitting import choose_split, describe_no_validation, fingerprint
from zoo.data.table import is_table, read_rows
from zoo.data.user_dataset import DatasetSplit, datasets_by_split, read_item, select_dataset
from zoo.errors import DataError, UsageError, did_you_mean

ReadRow = Callable[[Mapping[str, str]], Any]
ReadTarget = Callable[[Any], Any]
TargetSplit = TypeVar("TargetSplit", FileSplit, DatasetSplit)

WHOLE = "all"
GIVEN = "splits as given"
EXPECTED = "name the columns in the first line: path, those of the targets, and optionally split"


def target_columns(path: Path) -> list[str]:
    """Return the names of the target columns of a table: all but `path` and `split`.

    Raises:
        DataError: it cannot be read; `path` or a target column is missing; or a name is repeated.
    """
    if not is_table(path):
        raise DataError(f"{path} is not a CSV or TSV file", EXPECTED)
    _, header = next(read_rows(path, EXPECTED), (1, []))
    names = [nfc(name) for name in header if name not in ("path", "split")]
    if "path" not in header or not names or len(set(header)) < len(header):
        columns = ", ".join(header) or "nothing"
        raise DataError(f"{path} names the columns {columns}", EXPECTED)
    return names


def read_table(path: Path, read_row: ReadRow) -> dict[str, FileSplit]:
    """Read a table of images.

    Args:
        path: a CSV or TSV file with a header; its column `path` is relative to the file's folder.
        read_row: converts the cells of a line, by column, to a target; raises `ValueError` or
            `DataError` for a bad cell, `KeyError` for a missing column.

    Returns:
        Splits by name, as in the column `split`; `all` without such a column.

    Raises:
        DataError: it cannot be read, or lines are invalid; lists every one.
    """
    target_columns(path)
    rows = read_rows(path, EXPECTED)
    header = [nfc(name) for name in next(rows)[1]]
    listed: dict[str, list[tuple[str, Any]]] = {}
    errors = []
    for line, cells in rows:
        try:
            if len(cells) != len(header):
                raise DataError(f"it has {len(cells)} fields, and the first line {len(header)}")
            row = dict(zip(header, cells, strict=True))
            split, target = _split_of(row), read_row(row)
            if not (path.parent / row["path"]).is_file():
                raise DataError(f"there is no file {row['path']!r}")
            listed.setdefault(split, []).append((row["path"], target))
        except KeyError as error:
            raise DataError(f"{path} has no column {error}", EXPECTED) from error
        except (ValueError, DataError) as error:
            errors.append(f"line {line}: {getattr(error, 'message', error)}")
    if errors or not listed:
        raise DataError(f"{path}: {'; '.join(errors) or 'it lists no images'}", EXPECTED)
    return {
        split: FileSplit(split, path.parent, *zip(*images, strict=True))
        for split, images in listed.items()
    }


def _split_of(row: Mapping[str, str]) -> str:
    if "split" not in row:
        return WHOLE
    split = split_of(row["split"])
    if split is None:
        hint = did_you_mean(row["split"], list(SPLITS)) or "use train, val and test"
        raise DataError(f"its split is {row['split']!r}; {hint}")
    return split


def read_dataset(name: str, dataset: Any, read_target: ReadTarget) -> DatasetSplit:
    """Wrap a `Dataset` as a split, and read the target of every item.

    Args:
        name: of the split.
        dataset: its items are `(image, target)`.
        read_target: converts the target of an item to that of the task; raises for a bad one.

    Raises:
        DataError: items are invalid; lists every one.
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
        raise DataError(f"data[{name!r}]: {'; '.join(errors)}")
    return DatasetSplit(name, dataset, tuple(range(len(targets))), tuple(targets), read_target)


def open_splits(source: Any, read_row: ReadRow, read_target: ReadTarget) -> dict[str, Any]:
    """Open every split of a table, a `Dataset`, or a mapping of splits.

    Raises:
        DataError, UsageError: as `read_table` and `read_dataset`.
    """
    if source is None:
        raise UsageError("there is no demonstration set for this task", "give --data FILE.csv")
    if isinstance(source, (str, Path)):
        return read_table(Path(source), read_row)
    parts = datasets_by_split(source)
    return {name: read_dataset(name, part, read_target) for name, part in parts.items()}


def open_one(
    source: Any, read_row: ReadRow, read_target: ReadTarget, split: str | None = None
) -> Split:
    """Open one split to evaluate on.

    Args:
        source: a table, a `Dataset`, which is one split, or a mapping of splits.
        read_row: as for `read_table`.
        read_target: as for `read_dataset`.
        split: name; None for `test`, else `val`; a table without a column `split` is one split.

    Raises:
        DataError: there is no such split; or as `open_splits`.
    """
    if source is not None and not isinstance(source, (str, Path)):
        return read_dataset(*select_dataset(source, split), read_target)
    splits = open_splits(source, read_row, read_target)
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
        raise DataError(f"{0 if train is None else len(train)} images are to train on", hint)
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
