"""Find images with equal content across splits and classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from zoo.data.names import relative_path
from zoo.data.scan import shorten
from zoo.data.split import Split
from zoo.errors import counted

# Of each kind in a notice; `run.json` and `zoo check --json` list all.
MAX_NAMES = 5


@dataclass(frozen=True)
class Duplicates:
    """Groups of images with equal content.

    Args:
        across_splits: paths of images that occur in several splits.
        across_classes: paths of images that occur under several classes, by class.
        repeated: number of further copies within one split and class.
        pairs: number of images that two splits share, by their names.
    """

    across_splits: tuple[tuple[tuple[str, str], ...], ...] = ()
    across_classes: tuple[tuple[tuple[str, str], ...], ...] = ()
    repeated: int = 0
    pairs: Mapping[tuple[str, str], int] = field(default_factory=dict)

    def notices(self, root: Path | str | None = None) -> list[str]:
        """Return one line for each pair of splits, and one for the classes.

        Args:
            root: the folder that paths are shown relative to.
        """
        lines = []
        for (first, second), count in self.pairs.items():
            names = [
                _equal(relative_path(path, root) for path, _ in _spread(group))
                for group in self.across_splits
                if {first, second} <= {split for _, split in group}
            ]
            images = counted(count, "image")
            lines.append(
                f"{images} of {second} {'is' if count == 1 else 'are'} in {first} too, byte for "
                f"byte, so its metrics are too good: {shorten(names, MAX_NAMES)}"
            )
        if self.across_classes:
            names = [
                _equal(f"{relative_path(path, root)} ({name})" for path, name in _spread(group))
                for group in self.across_classes
            ]
            under = counted(len(names), "image is", "images are")
            lines.append(f"{under} under several classes: {shorten(names, MAX_NAMES)}")
        return lines

    def to_dict(self) -> dict[str, object]:
        """Return all groups as JSON-compatible data."""
        return {
            "across_splits": [
                [{"path": path, "split": name} for path, name in group]
                for group in self.across_splits
            ],
            "across_classes": [
                [{"path": path, "class": name} for path, name in group]
                for group in self.across_classes
            ],
            "repeated": self.repeated,
        }


def _equal(names: Iterable[str]) -> str:
    return shorten(names, MAX_NAMES, " = ")


def _spread(group: Sequence[tuple[str, str]]) -> Sequence[tuple[str, str]]:
    """Return a group that is not shown as a whole with an image of each split or class first."""
    if len(group) <= MAX_NAMES:
        return group
    first = {name: (path, name) for path, name in reversed(group)}
    shown = [each for each in group if first[each[1]] == each]
    return [*shown, *(each for each in group if first[each[1]] != each)]


def find_duplicates(
    splits: Mapping[str, Split], digests: Mapping[str, Sequence[bytes]], classes: Sequence[str] = ()
) -> Duplicates:
    """Group images by content.

    Args:
        splits: by name.
        digests: by split, the digest of each image; empty or zeros where there is none.
        classes: names by target; empty for targets that are not class indices.
    """
    groups: dict[bytes, list[tuple[str, int]]] = {}
    for name, each in digests.items():
        for index, digest in enumerate(each):
            if any(digest):
                groups.setdefault(digest, []).append((name, index))
    across_splits, across_classes, repeated = [], [], 0
    pairs: dict[tuple[str, str], int] = {}
    for group in (group for group in groups.values() if len(group) > 1):
        paths = [(splits[name].where(index), name, index) for name, index in group]
        names = list(dict.fromkeys(name for name, _ in group))
        labels = {_class_of(splits[name], index, classes) for name, index in group}
        repeated += len(group) - len(names) if len(labels) == 1 else 0
        if len(names) > 1:
            across_splits.append(tuple((path, name) for path, name, _ in paths))
            for second in names[1:]:
                key = names[0], second
                pairs[key] = pairs.get(key, 0) + sum(name == second for name, _ in group)
        if len(labels) > 1:
            across_classes.append(
                tuple((path, _class_of(splits[name], i, classes)) for path, name, i in paths)
            )
    return Duplicates(tuple(across_splits), tuple(across_classes), repeated, pairs)


def _class_of(split: Split, index: int, classes: Sequence[str]) -> str:
    target = split.targets[index] if classes else None
    return classes[target] if isinstance(target, int) and 0 <= target < len(classes) else ""
