"""Opening labelled images of every kind: folders, tables, published sets and data sets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import zoo.data
from zoo.data.split import ImageData, Split
from zoo.data.table import is_table
from zoo.errors import UsageError
from zoo.tasks.classification.data.folder import open_folder, open_folder_split
from zoo.tasks.classification.data.published import (
    find_published,
    open_published,
    open_published_split,
)
from zoo.tasks.classification.data.table import open_table, open_table_split

EMBEDDED = Path(zoo.data.__path__[0]) / "clipart10"
EMBEDDED_NAME = "clipart10 (embedded)"


def open_data(
    source: Any, *, seed: int = 0, val_fraction: float = 0.2, classes: int | None = None
) -> ImageData:
    """Find images, and split them for training.

    Args:
        source: a folder of class folders; or one with `train/`, maybe `val/` (or `valid/`, or
            `validation/`) and maybe `test/`, each of class folders; or a CSV or TSV file of path,
            label and maybe split; or `cifar10:DIR`, `mnist:DIR` and their like, as torchvision
            lays them out below its root DIR; or a `Dataset`, or a mapping of splits to `Dataset`s
            or `DataLoader`s; None for the embedded images. A path that exists is that path,
            whatever it looks like.
        seed: decides which images are held out where there is no validation split.
        val_fraction: the share of each class that is held out there.
        classes: how many there are, for a dataset that names none.

    Raises:
        DataError: they cannot be trained on; says what is missing, and where.
        UsageError: `val_fraction` is not between 0 and 1, or no published set has that name.
    """
    if not 0 < val_fraction < 1:
        raise UsageError(f"the validation share {val_fraction} is not between 0 and 1")
    if _is_own(source):
        from zoo.tasks.classification.data.user_dataset import open_own

        return open_own(source, seed=seed, val_fraction=val_fraction, classes=classes)
    if source is None:
        return open_folder(EMBEDDED, seed=seed, val_fraction=val_fraction, name=EMBEDDED_NAME)
    if published := find_published(source):
        return open_published(*published, seed=seed, val_fraction=val_fraction)
    path = Path(source)
    if is_table(path):
        return open_table(path, seed=seed, val_fraction=val_fraction)
    return open_folder(path, seed=seed, val_fraction=val_fraction)


def _is_own(source: object) -> bool:
    """Whether it is a data set in Python rather than a path; only that needs torch."""
    return source is not None and not isinstance(source, (str, Path))


def open_split(source: Any, classes: Sequence[str], split: str | None = None) -> Split:
    """Find the images to evaluate a model on.

    Args:
        source: as for `open_data`.
        classes: the model's, in its order; labels point into them by name.
        split: which one; None for `test` where there is one, else `val`. What has no splits has
            one, `all`.

    Raises:
        DataError: no such split, no images, or classes that the model does not know.
        UsageError: no published set has that name.
    """
    if _is_own(source):
        from zoo.tasks.classification.data.user_dataset import open_own_split

        return open_own_split(source, classes, split)
    if source is None:
        return open_folder_split(EMBEDDED, classes, split)
    if published := find_published(source):
        return open_published_split(*published, classes, split)
    path = Path(source)
    if is_table(path):
        return open_table_split(path, classes, split)
    return open_folder_split(path, classes, split)
