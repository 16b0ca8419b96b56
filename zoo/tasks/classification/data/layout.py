"""The layout of a folder of images: which folders are splits, and which are classes."""

from __future__ import annotations

import stat
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from zoo.data.formats import is_image
from zoo.data.names import affixed_split, nfc, sort_classes, split_of
from zoo.data.scan import is_data_folder, is_folder, list_folder, shorten
from zoo.data.shards import shards_hint
from zoo.data.split_choice import describe_wrapper, listed
from zoo.errors import DataError, counted
from zoo.tasks.classification.data.hold_out import SplitName
from zoo.tasks.classification.data.scan import Images, Scan

EXPECTED = "give a folder of class folders, or one with train/ and val/ of class folders"
SPLIT_ORDER = ("train", "val", "test")
USUAL = ("train", "val", "valid", "validation", "test")
# Mean share of all sub-folder names that each folder has, from which their sets are nearly equal.
NEARLY_EQUAL = 2 / 3


@dataclass(frozen=True)
class Layout:
    """The folders of the splits, relative to the root.

    Args:
        root: of the data.
        folders: by split, its folder; a plain folder of class folders is its own `train`, "".
        inner: by split, the name of its folder inside every class folder; empty for other layouts.
        notices: skipped and inferred folders, one line each.
    """

    root: Path
    folders: Mapping[str, str]
    inner: Mapping[str, str] = field(default_factory=dict)
    notices: tuple[str, ...] = ()

    @property
    def plain(self) -> bool:
        """Whether there are no splits."""
        return self.folders == {"train": ""} and not self.inner

    @property
    def names(self) -> str:
        """The split folders, listed for messages."""
        return listed(f"{folder}/" for folder in (self.inner or self.folders).values())

    def short(self, split: str) -> str:
        """Return the relative folder of a split; empty for a folder of class folders."""
        folder = (self.inner or self.folders)[split]
        return f"{folder}/" if folder else ""

    def split_name(self, split: str) -> SplitName:
        """Return the names of a split for messages."""
        full = f"{self.short(split)} of {self.root}" if self.inner else str(self.path(split))
        return SplitName(full, self.short(split))

    def path(self, split: str) -> Path:
        """Return the folder of a split's class folders; a held-out `val` shares that of `train`."""
        return self.root / self.folders.get(split, self.folders.get("train", ""))


def find_layout(root: Path, known: Collection[str] = ()) -> Layout:
    """Find the split folders of a folder by their names.

    A folder that is alone in another is taken for a wrapper and entered.

    Args:
        root: of the data.
        known: classes of a model, whose folders are no wrappers.

    Raises:
        DataError: it is not a folder, or two folders are the same split.
    """
    _check_folder(root)
    known = {nfc(name) for name in known}
    base = _unwrapped(root, known)
    notices = []
    if base != root:
        notices.append(describe_wrapper(root, base))
    entries = list_folder(base)
    folders = [entry.name for entry in entries if is_data_folder(entry)]
    named = _split_folders(base, folders)
    if not named:
        return Layout(base, {"train": ""}, notices=tuple(notices))
    by_split = _by_split(base, named)
    classes = known
    if "train" in by_split:
        by_split["train"] = _unwrapped_split(base, by_split["train"], known)
        classes = known | {nfc(name) for name in _subfolders(base / by_split["train"])}
    for split in [split for split in by_split if split != "train"]:
        by_split[split] = _unwrapped_split(base, by_split[split], classes)
    inferred = [
        f"{folder}/ is {split}" for split, folder in by_split.items() if folder.lower() not in USUAL
    ]
    if inferred:
        notices.append(f"splits by name: {', '.join(inferred)}")
    others = [entry.name for entry in entries if is_folder(entry) and entry.name not in named]
    if others:
        if "val" not in by_split:
            _refuse_further_splits(base, others, by_split, classes)
        notices.append(f"skipped: folders beside {'/, '.join(named)}/: {shorten(others)}")
    stray = sum(is_image(entry.name) and not is_folder(entry) for entry in entries)
    if stray:
        notices.append(f"skipped: {counted(stray, 'image')} beside the splits")
    return Layout(base, by_split, notices=tuple(notices))


def check_classes(
    root: Path, scan: Scan, classes: int | None = None, known: Collection[str] = ()
) -> None:
    """Check that the folders of a root are its classes, and not parts of a data set.

    Args:
        root: of the class folders.
        scan: of the root.
        classes: number of classes as given; folders of this number are classes.
        known: classes of a model; folders of their names are classes.

    Raises:
        DataError: they can be read as classes and as parts; states both readings.
    """
    folders = [name for name, images in scan.images.items() if images]
    names = {nfc(name) for name in known}
    if classes == len(folders) or (names and names.issuperset(folders)):
        return
    inner = _common([_inner_folders(scan.folders[name]) for name in folders])
    if parts := inner or _affixed_classes(folders):
        raise _ambiguous(root, folders, parts)


def class_first(layout: Layout, scan: Scan) -> tuple[Layout, dict[str, Images]] | None:
    """Return the splits inside class folders, as in `cat/train`, `cat/val`; None for others.

    Args:
        layout: without split folders.
        scan: of the root.

    Returns:
        The layout, and the images by split and class.
    """
    folders = [name for name, images in scan.images.items() if images]
    by_split: dict[str, str] = {}
    for label in folders:
        names = _inner_folders(scan.folders[label])
        splits = {name: split_of(name) for name in names}
        if not names or None in splits.values() or len(set(splits.values())) < len(names):
            return None
        by_split |= {split: name for name, split in splits.items() if split}
    if "train" not in by_split or len(by_split) < 2:
        return None
    parts: dict[str, Images] = {split: {} for split in SPLIT_ORDER if split in by_split}
    for label in folders:
        for path, size in scan.images[label]:
            split = next(filter(None, map(split_of, path.split("/")[1:])))
            parts[split].setdefault(label, []).append((path, size))
    inner = {split: by_split[split] for split in parts}
    folder = dict.fromkeys(inner, "")
    return replace(layout, folders=folder, inner=inner), parts


def _check_folder(root: Path) -> None:
    try:
        mode = root.stat().st_mode
    except FileNotFoundError as error:
        raise DataError(f"{root} does not exist", shards_hint(root) or EXPECTED) from error
    except OSError as error:
        raise DataError(f"cannot read {root}: {error.strerror or error}") from error
    if not stat.S_ISDIR(mode):
        hint = shards_hint(root) or f"unpack it if it is an archive; {EXPECTED}"
        raise DataError(f"{root} is a file", hint)


def _subfolders(folder: Path) -> list[str]:
    return [entry.name for entry in list_folder(folder) if is_data_folder(entry)]


def _lone_folder(folder: Path) -> str | None:
    """Return the only folder in a folder that has no images; None for any other content."""
    entries = list_folder(folder)
    names = [entry.name for entry in entries if is_data_folder(entry)]
    if len(names) != 1 or any(is_image(entry.name) for entry in entries):
        return None
    return names[0]


def _unwrapped(root: Path, known: Collection[str]) -> Path:
    """Return the folder with at least two folders, or splits, that others wrap; or the root."""
    current, visited = root, {root.resolve()}
    while (name := _lone_folder(current)) is not None:
        if split_of(name) or nfc(name) in known or (current / name).resolve() in visited:
            break
        current /= name
        visited.add(current.resolve())
    inner = _subfolders(current)
    return current if len(inner) > 1 or (inner and split_of(inner[0])) else root


def _unwrapped_split(base: Path, folder: str, classes: Collection[str]) -> str:
    """Return the folder with the class folders of a split, such as `train/train`."""
    current = folder
    while (name := _lone_folder(base / current)) is not None and nfc(name) not in classes:
        inner = _subfolders(base / current / name)
        if not inner or (base / current / name).is_symlink():
            break
        current = f"{current}/{name}"
    names = _subfolders(base / current)
    return current if len(names) > 1 or any(nfc(name) in classes for name in names) else folder


def _split_folders(base: Path, folders: Sequence[str]) -> dict[str, str]:
    """Return the split of each folder that is one by its name; empty if the folders are classes."""
    named = {folder: split for folder in folders if (split := split_of(folder))}
    # A class may be called train: it contains images, whereas a split contains folders.
    if named and (len(named) == len(folders) or any(_subfolders(base / f) for f in named)):
        return named
    affixed = {folder: pair for folder in folders if (pair := affixed_split(folder))}
    for rest in dict.fromkeys(rest for _, rest in affixed.values()):
        named = {folder: split for folder, (split, other) in affixed.items() if other == rest}
        several = "train" in named.values() and len(set(named.values())) > 1
        if several and all(_subfolders(base / folder) for folder in named):
            return named
    return {}


def _by_split(root: Path, named: Mapping[str, str]) -> dict[str, str]:
    by_split: dict[str, str] = {}
    for name in SPLIT_ORDER:
        for folder in (folder for folder, split in named.items() if split == name):
            if name in by_split:
                pair = f"{by_split[name]}/ and {folder}/"
                raise DataError(f"{root} has both {pair} for the split {name}", "remove one")
            by_split[name] = folder
    return by_split


def _refuse_further_splits(
    root: Path, others: Sequence[str], by_split: Mapping[str, str], classes: Collection[str]
) -> None:
    """Refuse folders beside `train` that have its class folders: a split that is not recognised."""
    for other in others:
        names = {nfc(name) for name in _subfolders(root / other)}
        if names and "train" in by_split and len(names & set(classes)) >= NEARLY_EQUAL * len(names):
            message = f"{root / other} has the class folders of {by_split['train']}/"
            raise DataError(message, "rename it val/ or test/ if it is a split, or move it away")


def _inner_folders(folders: Mapping[str, int]) -> set[str]:
    """Return the sub-folders of a class folder that have images, below a common wrapper.

    Args:
        folders: number of images by folder, relative to the class folder.

    Returns:
        Names; "" stands for images beside the sub-folders.
    """
    paths = [folder.split("/") if folder else [] for folder in folders]
    while paths and all(paths) and len({path[0] for path in paths}) == 1:
        if split_of(paths[0][0]):
            break
        paths = [path[1:] for path in paths]
    return {path[0] if path else "" for path in paths}


def _common(inner: Sequence[set[str]]) -> list[str]:
    """Return the sub-folders that nearly all folders have; empty if their sets differ."""
    sets = [{nfc(name) for name in names if name} for names in inner]
    sets = [names for names in sets if names]
    names = set().union(*sets)
    if len(sets) < 2 or 2 * len(sets) < len(inner) or len(names) < 2:
        return []
    return sort_classes(names) if _nearly_equal(sets) else []


def _nearly_equal(sets: Collection[set[str]]) -> bool:
    union = set().union(*sets)
    return sum(map(len, sets)) >= NEARLY_EQUAL * len(union) * len(sets)


def _affixed_classes(folders: Sequence[str]) -> list[str]:
    """Return the classes of folders such as `train_cat` and `test_cat`; empty for others."""
    rests: dict[str, set[str]] = {}
    for folder in folders:
        pair = affixed_split(folder)
        if pair is None:
            return []
        rests.setdefault(pair[0], set()).add(pair[1])
    if "train" not in rests or len(rests) == 1 or not _nearly_equal(rests.values()):
        return []
    return sort_classes(set().union(*rests.values()))


def _ambiguous(root: Path, folders: Sequence[str], names: Sequence[str]) -> DataError:
    """Return the error of folders that can be read as classes and as splits."""
    shown = shorten(f"{folder}/" for folder in folders)
    message = (
        f"{root} can be read in two ways: {shown} are {counted(len(folders), 'class')}, or parts "
        f"of a data set with the {counted(len(names), 'class')} {shorten(names)}"
    )
    way = "list the images in a table of path,label"
    if len(folders) != len(names):
        way = f"give --classes {len(folders)}"
    splits = "arrange them as train/ and val/ of class folders"
    return DataError(message, f"if they are classes, {way}; if they are parts, {splits}")
