"""Images with targets of any kind, from tables and from datasets of the user's own.

What a task of one's own opens its data with: the task says how a target is read, and the rest,
splits, held-out samples, fingerprints and reports of what is wrong, is the same for all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from zoo.data.schema import Schema
from zoo.data.split import SPLITS, FileSplit, ImageData, Split, draw_held
from zoo.data.splitting import choose_split, fingerprint
from zoo.data.table import is_table, read_rows
from zoo.data.user_dataset import DatasetSplit, choose_part, parts_of, read_item
from zoo.errors import DataError, UsageError, did_you_mean

ReadRow = Callable[[Mapping[str, str]], Any]
ReadTarget = Callable[[Any], Any]
TargetSplit = TypeVar("TargetSplit", FileSplit, DatasetSplit)

WHOLE = "all"
EXPECTED = "name the columns in a first line: path, those of the targets, and maybe split"


def target_columns(path: Path) -> list[str]:
    """Return the names of a table's columns but `path` and `split`.

    Raises:
        DataError: it cannot be read, or names no column `path`, no other, or one twice.
    """
    if not is_table(path):
        raise DataError(f"{path} is no CSV or TSV file", EXPECTED)
    _, header = next(read_rows(path, EXPECTED), (1, []))
    names = [name for name in header if name not in ("path", "split")]
    if "path" not in header or not names or len(set(header)) < len(header):
        found = ", ".join(header) or "nothing"
        raise DataError(f"{path} names the columns {found}", EXPECTED)
    return names


def read_table(path: Path, read_row: ReadRow) -> dict[str, FileSplit]:
    """Read a table of images.

    Args:
        path: a CSV or TSV file with a header; its column `path` is relative to its folder.
        read_row: makes a target of the cells of a line, by column; raises `ValueError` or
            `DataError` where it cannot, `KeyError` where there is no such column.

    Returns:
        The splits that the column `split` names; `all` where there is none.

    Raises:
        DataError: it cannot be read, or lines of it are wrong; names every one.
    """
    target_columns(path)
    rows = read_rows(path, EXPECTED)
    _, header = next(rows)
    listed: dict[str, list[tuple[str, Any]]] = {}
    wrong = []
    for line, cells in rows:
        try:
            if len(cells) != len(header):
                raise DataError(f"it has {len(cells)} fields, and the first line {len(header)}")
            row = dict(zip(header, cells, strict=True))
            split, target = _split_of(row), read_row(row)
            if not (path.parent / row["path"]).is_file():
                raise DataError(f"there is no file {row['path']!r}")
            listed.setdefault(split, []).append((row["path"], target))
        except KeyError as missing:
            raise DataError(f"{path} has no column {missing}", EXPECTED) from missing
        except (ValueError, DataError) as error:
            wrong.append(f"line {line}: {getattr(error, 'message', error)}")
    if wrong or not listed:
        raise DataError(f"{path}: {'; '.join(wrong) or 'it lists no images'}", EXPECTED)
    return {
        split: FileSplit(split, path.parent, *zip(*images, strict=True))
        for split, images in listed.items()
    }


def _split_of(row: Mapping[str, str]) -> str:
    if "split" not in row:
        return WHOLE
    if row["split"].lower() not in SPLITS:
        hint = did_you_mean(row["split"], list(SPLITS)) or "use train, val and test"
        raise DataError(f"its split is {row['split']!r}; {hint}")
    return SPLITS[row["split"].lower()]


def read_dataset(name: str, dataset: Any, read_target: ReadTarget) -> DatasetSplit:
    """Take a `Dataset` as a split, and read the target of every item.

    Args:
        name: of the split.
        dataset: gives `(image, target)`.
        read_target: makes of a target what the task has; raises where it cannot.

    Raises:
        DataError: names every item that is wrong.
        UsageError: it gives batches, and no items.
    """
    if not hasattr(dataset, "__getitem__"):
        raise UsageError(f"a {type(dataset).__name__} gives no single items", "give its Dataset")
    targets, wrong = [], []
    for index in range(len(dataset)):
        try:
            targets.append(read_item(dataset, index, read_target)[1])
        except DataError as error:
            wrong.append(f"item {index}: {error.message}")
    if wrong:
        raise DataError(f"data[{name!r}]: {'; '.join(wrong)}")
    return DatasetSplit(name, dataset, tuple(range(len(targets))), tuple(targets), read_target)


def open_splits(source: Any, read_row: ReadRow, read_target: ReadTarget) -> dict[str, Any]:
    """Open every split of a source to train on: a table, a `Dataset`, or a mapping of splits.

    Raises:
        DataError, UsageError: as `read_table` and `read_dataset`.
    """
    if source is None:
        raise UsageError("there is no demonstration set for this task", "give --data FILE.csv")
    if isinstance(source, (str, Path)):
        return read_table(Path(source), read_row)
    parts = parts_of(source)
    return {name: read_dataset(name, part, read_target) for name, part in parts.items()}


def open_one(
    source: Any, read_row: ReadRow, read_target: ReadTarget, split: str | None = None
) -> Split:
    """Open one split of a source to evaluate on.

    Args:
        source: a table, a `Dataset`, which is measured whole, or a mapping of splits.
        read_row: as for `read_table`.
        read_target: as for `read_dataset`.
        split: which; None for `test` where there is one, else `val`; of a table without a column
            for it, the whole.

    Raises:
        DataError: there is no such split, or as above.
    """
    if source is not None and not isinstance(source, (str, Path)):
        return read_dataset(*choose_part(source, split), read_target)
    splits = open_splits(source, read_row, read_target)
    if WHOLE not in splits or split not in (None, WHOLE):
        split = choose_split(str(source), {name: name for name in splits}, split)
    return splits[split or WHOLE]  # type: ignore[no-any-return]


def hold_out(splits: Mapping[str, Any], seed: int, fraction: float) -> tuple[dict[str, Any], str]:
    """Return `train`, `val` and `test` where there is one, and how they came about.

    Args:
        splits: as opened; where there is no `val`, a share of `train` or `all` is held out.
        seed: decides which samples are.
        fraction: the share, between 0 and 1.

    Raises:
        DataError: there are not two samples to train on.
        UsageError: the fraction is not between 0 and 1.
    """
    if not 0 < fraction < 1:
        raise UsageError(f"the validation share {fraction} is not between 0 and 1")
    train = splits.get("train", splits.get(WHOLE))
    if train is None or len(train) < 2:
        hint = "two are the least, one to train and one to validate"
        raise DataError(f"{0 if train is None else len(train)} images are to train on", hint)
    found = {name: split for name, split in splits.items() if name in ("val", "test")}
    reason = "splits as given"
    if "val" not in found:
        held = draw_held(_names(train), seed, fraction)
        kept = [row for row in range(len(train)) if row not in held]
        found["val"], train = _take("val", train, sorted(held)), _take("train", train, kept)
        reason = f"{100 * fraction:g} % held out by seed {seed}"
    order = {"train": train, **found}
    return {name: order[name] for name in ("train", "val", "test") if name in order}, reason


def image_data(source: Any, splits: Mapping[str, Any], schema: Schema, reason: str) -> ImageData:
    """Return opened splits as a task's `open_data` does.

    Args:
        source: that they were opened from.
        splits: of `hold_out`, their targets as the loss has them.
        schema: what the targets are.
        reason: how the splits came about.
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
    )


@dataclass(frozen=True)
class _Both:
    """One reader after another; it pickles, as worker processes need it."""

    first: ReadTarget
    then: ReadTarget

    def __call__(self, target: Any) -> Any:
        return self.then(self.first(target))


def map_targets(split: TargetSplit, function: ReadTarget) -> TargetSplit:
    """Return a split with another target for each, such as a scaled one."""
    targets = tuple(map(function, split.targets))
    if isinstance(split, DatasetSplit):
        return replace(split, targets=targets, read_target=_Both(split.read_target, function))
    return replace(split, targets=targets)


def _names(split: FileSplit | DatasetSplit) -> list[str]:
    """Return what identifies the samples of a split."""
    return list(map(str, split.indices if isinstance(split, DatasetSplit) else split.paths))


def _sizes(split: FileSplit | DatasetSplit) -> dict[str, list[tuple[str, int]]]:
    """Return name and size of each sample by its target, for the fingerprint."""
    parts: dict[str, list[tuple[str, int]]] = {}
    for index, (name, label) in enumerate(zip(_names(split), split.targets, strict=True)):
        size = split.path(index).stat().st_size if isinstance(split, FileSplit) else 0
        parts.setdefault(str(label), []).append((name, size))
    return parts


def _take(name: str, split: TargetSplit, rows: Sequence[int]) -> TargetSplit:
    """Return some samples of a split as another."""
    targets = tuple(split.targets[row] for row in rows)
    if isinstance(split, DatasetSplit):
        indices = tuple(split.indices[row] for row in rows)
        return replace(split, name=name, targets=targets, indices=indices)
    paths = tuple(split.paths[row] for row in rows)
    return replace(split, name=name, targets=targets, paths=paths)
