"""Open labelled images: folders, tables, published datasets and datasets of the user."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zoo.data
from zoo.data.split import ImageData, Split, check_fraction
from zoo.data.table import is_table, metadata_table
from zoo.errors import UsageError
from zoo.options.columns import Columns
from zoo.tasks.classification.data.folder import open_folder, open_folder_split
from zoo.tasks.classification.data.hold_out import HoldOut
from zoo.tasks.classification.data.published import (
    open_published,
    open_published_split,
    parse_published,
)
from zoo.tasks.classification.data.table import open_table, open_table_split

EMBEDDED = Path(zoo.data.__path__[0]) / "clipart10"
EMBEDDED_NAME = "clipart10 (embedded)"


def open_data(
    source: Any,
    *,
    seed: int = 0,
    val_fraction: float = 0.2,
    classes: int | None = None,
    columns: Columns | None = None,
    group: str | None = None,
    group_by: str | None = None,
) -> ImageData:
    """Index images, and split them for training.

    Args:
        source: a folder of class folders; or one with `train/`, optionally `val/` and `test/`, each
            of class folders, whose names `split_of` reads; or a table of path, label and optionally
            split, or a folder of images with a `metadata.csv` or `.jsonl`; or `NAME:DIR` of a
            published dataset, such as `cifar10:DIR`, as torchvision stores it below its root DIR;
            or a `Dataset`, or a mapping of splits to `Dataset`s or `DataLoader`s; None for the
            embedded images. An existing path takes precedence over `NAME:DIR`.
        seed: of the draw of held-out images where there is no validation split.
        val_fraction: share of each class to hold out; 0 for none, so that all images train.
        classes: number of classes, for a dataset that names none, and for a folder that can be
            read in two ways.
        columns: of a table, by role; those that are not given are inferred.
        group: column of a table; images of equal values stay on one side of a split.
        group_by: regular expression; images in whose relative path it finds the same stay on one
            side of a split.

    Raises:
        DataError: they cannot be trained on; names what is missing, and where.
        UsageError: `val_fraction` is not between 0 and 1, or the published dataset is unknown.
    """
    check_fraction(val_fraction)
    _check_columns(source, columns)
    how = HoldOut(seed, val_fraction, group, group_by)
    _check_groups(source, how)
    if _is_dataset(source):
        from zoo.tasks.classification.data.user_dataset import open_dataset

        return open_dataset(source, seed=seed, val_fraction=val_fraction, classes=classes)
    if source is None:
        return open_folder(EMBEDDED, how, name=EMBEDDED_NAME)
    if published := parse_published(source):
        return open_published(*published, seed=seed, val_fraction=val_fraction)
    path = _table_or_folder(source)
    if is_table(path):
        return open_table(path, how, columns=columns)
    return open_folder(path, how, n_classes=classes)


def _check_columns(source: Any, columns: Columns | None) -> None:
    """Refuse columns of a source that is not a table.

    Raises:
        UsageError: columns are given for one.
    """
    if columns is not None and not (
        isinstance(source, (str, Path)) and is_table(_table_or_folder(source))
    ):
        name = source if isinstance(source, (str, Path)) else "the data"
        raise UsageError(f"--columns {columns}, but {name} is not a table", "omit it")


def _check_groups(source: Any, how: HoldOut) -> None:
    """Refuse groups of a source that has none.

    Raises:
        UsageError: groups are given for one.
    """
    files = isinstance(source, (str, Path)) and parse_published(source) is None
    name = source if isinstance(source, (str, Path)) else "the data"
    if how.group is not None and not (files and is_table(_table_or_folder(source))):
        hint = "find the group in the path of each image by --group-by" if files else "omit it"
        raise UsageError(f"--group {how.group}, but {name} is not a table", hint)
    if how.group_by is not None and not files:
        message = f"--group-by {how.group_by}, but {name} is not a folder or a table of files"
        raise UsageError(message, "omit it")


def _table_or_folder(source: str | Path) -> Path:
    """Return a path, or the metadata table in it."""
    return metadata_table(Path(source)) or Path(source)


def _is_dataset(source: object) -> bool:
    """Return whether the source is a Python object rather than a path; only that needs torch."""
    return source is not None and not isinstance(source, (str, Path))


def open_split(
    source: Any, classes: Sequence[str], split: str | None = None, columns: Columns | None = None
) -> Split:
    """Index the images to evaluate a model on.

    Args:
        source: as for `open_data`.
        classes: of the model, in its order; classes of the data are matched by name.
        split: name; None for `test`, else `val`. A source without splits has one, `all`.
        columns: of a table, by role; those that are not given are inferred.

    Raises:
        DataError: there is no such split, no image, or a class unknown to the model.
        UsageError: the published dataset is unknown.
    """
    _check_columns(source, columns)
    if _is_dataset(source):
        from zoo.tasks.classification.data.user_dataset import open_dataset_split

        return open_dataset_split(source, classes, split)
    if source is None:
        return open_folder_split(EMBEDDED, classes, split)
    if published := parse_published(source):
        return open_published_split(*published, classes, split)
    path = _table_or_folder(source)
    if is_table(path):
        return open_table_split(path, classes, split, columns)
    return open_folder_split(path, classes, split)
