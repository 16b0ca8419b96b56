"""Name all images that cannot be read in one error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from zoo.data.names import relative_path
from zoo.data.scan import shorten
from zoo.errors import DataError, counted

# Of each reason; `zoo check` lists all.
MAX_NAMES = 20


class UnreadableImages(DataError):
    """Images that cannot be read.

    Args:
        bad: reasons by path.
        total: number of images that were read; None where it is unknown.
    """

    def __init__(self, bad: Mapping[str, str], total: int | None = None) -> None:
        self.bad = dict(bad)
        if len(bad) == 1:
            ((path, reason),) = bad.items()
            super().__init__(
                f"cannot read {path}: {reason}", "remove it, or give --bad-images skip"
            )
            return
        images = (
            counted(len(bad), "image") if total is None else f"{len(bad):,} of {total:,} images"
        )
        listed = "; ".join(describe_bad(bad))
        hint = "remove them, or give --bad-images skip"
        if any(len(paths) > MAX_NAMES for paths in by_reason(bad).values()):
            hint += "; `zoo check DATA` lists all"
        super().__init__(f"{images} cannot be read: {listed}", hint)


def no_readable_image(name: str) -> DataError:
    """Return the error for a data set or a split, none of whose images can be read."""
    return DataError(f"no image of {name} can be read", "give --bad-images error to see why")


def by_reason(bad: Mapping[str, str]) -> dict[str, list[str]]:
    """Group paths by the reason why they cannot be read, the most frequent first."""
    groups: dict[str, list[str]] = {}
    for path, reason in sorted(bad.items()):
        groups.setdefault(reason, []).append(path)
    return dict(sorted(groups.items(), key=lambda item: -len(item[1])))


def describe_bad(bad: Mapping[str, str], most: int = MAX_NAMES) -> list[str]:
    """Return one line for each reason, with the number of images and the first paths."""
    return [
        f"{reason} ({counted(len(paths), 'image')}): {shorten(paths, most)}"
        for reason, paths in by_reason(bad).items()
    ]


def merge_bad(parts: Iterable[Mapping[str, str]]) -> dict[str, str]:
    """Merge the reasons by path of several processes, sorted by path."""
    return dict(sorted(item for part in parts for item in part.items()))


def describe_incomplete(paths: Sequence[str], root: Path | str | None = None) -> list[str]:
    """Return a notice for JPEG files that lack their last bytes, if any.

    Args:
        paths: of the files.
        root: the folder that they are shown relative to.
    """
    if not paths:
        return []
    listed = shorten(relative_path(path, root) for path in paths)
    count = counted(len(paths), "JPEG lacks its", "JPEG files lack their")
    return [f"{count} last bytes, read without them: {listed}"]
