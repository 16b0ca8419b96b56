"""All images of a source, labelled or not, whatever their split."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.data.formats import describe_missing, is_image
from zoo.data.scan import is_data_folder, is_hidden, list_folder
from zoo.data.split import FileSplit, ImageData, Split
from zoo.errors import DataError, UsageError, counted

UNKNOWN = 0
EXPECTED = "give a folder of images, or of class folders"


@dataclass(frozen=True)
class AllImages:
    """All images of a source.

    Args:
        name: of the source.
        splits: all splits that the task opens.
        classes: names in the order of the labels; empty where the images have none.
        notices: skipped files and oddities, one line each.
        root: the folder that paths in notices are relative to; None for data without files.
    """

    name: str
    splits: tuple[Split, ...]
    classes: tuple[str, ...]
    notices: tuple[str, ...] = ()
    root: Path | None = None

    def __len__(self) -> int:
        return sum(map(len, self.splits))

    @property
    def largest_share(self) -> float:
        """Share of the most frequent class, the accuracy of the best constant guess."""
        counts = zip(*(split.counts(len(self.classes)) for split in self.splits), strict=True)
        return max(map(sum, counts)) / max(len(self), 1)


def open_all(source: Any, open_data: Callable[[Any], ImageData]) -> AllImages:
    """Open all images of a source.

    Args:
        source: as `open_data` takes it, or a folder of images without classes.
        open_data: of the task.

    Raises:
        DataError: there are none.
        UsageError: the source is a dataset object, which may return another image each time.
    """
    if source is not None and not isinstance(source, (str, Path)):
        raise UsageError(f"features of a {type(source).__name__} are not cached", "give a folder")
    if source is not None and (flat := _flat(Path(source))):
        return flat
    data = open_data(source)
    return AllImages(data.name, tuple(data.splits.values()), data.classes, data.notices, data.root)


def _flat(root: Path) -> AllImages | None:
    """Return the images of a folder without subfolders; None for any other path."""
    if not root.is_dir():
        return None
    entries = list_folder(root)
    if any(is_data_folder(entry) for entry in entries):
        return None
    visible = [entry.name for entry in entries if not is_hidden(entry.name)]
    names = sorted(name for name in visible if is_image(name))
    others = [name for name in visible if not is_image(name)]
    missing = describe_missing({Path(name).suffix.lower() for name in others})
    if not names:
        raise DataError(f"{root} has no images", missing or EXPECTED)
    notice = f"skipped: {counted(len(others), 'file')} that are not images"
    notices = (notice + (f"; {missing}" if missing else ""),) if others else ()
    split = FileSplit("all", root, tuple(names), (UNKNOWN,) * len(names))
    return AllImages(root.absolute().name, (split,), (), notices, root)
