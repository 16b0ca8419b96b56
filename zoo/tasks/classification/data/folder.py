"""Folders of images: their classes and splits, found once and the same everywhere."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.data.scan import counted, is_folder, is_image, list_folder, shorten
from zoo.data.schema import Schema
from zoo.data.split import SPLITS, FileSplit, ImageData
from zoo.data.splitting import choose_split, fingerprint, listed
from zoo.errors import DataError
from zoo.tasks.classification.data.scan import Images, Scan, scan_classes
from zoo.tasks.classification.data.splitting import (
    SplitName,
    check_drawn,
    check_held,
    check_known,
    file_split,
    hold_out,
    why_drawn,
)

EXPECTED = "give a folder of class folders, or one with train/ and val/ of class folders"


def open_folder(root: Path, *, seed: int, val_fraction: float, name: str = "") -> ImageData:
    """Find the images of a folder, and split them for training.

    Args:
        root: a folder of class folders; or one with `train/`, maybe `val/` (or `valid/`, or
            `validation/`) and maybe `test/`, each of class folders.
        seed: decides which images are held out where the folder has no `val/`.
        val_fraction: the share of each class that is held out there, between 0 and 1.
        name: how a person would call it; by default the folder's own name.

    Raises:
        DataError: the folder cannot be trained on; says what is missing, and where.
    """
    layout = _find_layout(root)
    if "train" not in layout.folders:
        raise DataError(f"{root} has {layout.names}, but no train/", EXPECTED)
    scans = {split: scan_classes(layout.path(split)) for split in layout.folders}
    notices = [*layout.notices]
    for split, scan in scans.items():
        notices += scan.notices(layout.short(split))
    _check_train(scans["train"], layout.path("train"))
    parts: dict[str, Images] = {"train": scans["train"].images}
    for split in [split for split in ("val", "test") if split in scans]:
        parts[split] = {label: found for label, found in scans[split].images.items() if found}
        notices += check_held(
            parts["train"], parts[split], layout.split_name(split), layout.split_name("train")
        )
    reason = f"{layout.names} as found"
    if "val" not in parts:
        parts["train"], parts["val"] = hold_out(parts["train"], seed, val_fraction)
        lone = [label for label, found in parts["val"].items() if not found]
        notices += check_drawn(lone, len(parts["val"]), str(layout.path("train")))
        reason = why_drawn(layout.short("train"), seed, val_fraction)
    classes = tuple(parts["train"])
    _check_names(classes, root)
    order = [split for split in ("train", "val", "test") if split in parts]
    return ImageData(
        name=name or root.absolute().name or str(root),
        schema=Schema(classes),
        splits={part: file_split(part, layout.path(part), parts[part], classes) for part in order},
        fingerprint=fingerprint({part: parts[part] for part in order}),
        notices=tuple(notices),
        reason=reason,
    )


def _check_names(classes: Sequence[str], root: Path) -> None:
    """Refuse names that no model file can store, before anything is trained on them."""
    for name in classes:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            message = f"{root}: the class folder {os.fsencode(name)!r} is not valid UTF-8"
            raise DataError(message, "rename it") from error


def open_folder_split(root: Path, classes: Sequence[str], split: str | None = None) -> FileSplit:
    """Find the images of a folder to evaluate a model on.

    Args:
        root: a folder as for `open_folder`.
        classes: the model's, in its order; labels point into them by name.
        split: which one; None for `test` where there is one, else `val`. A folder of class
            folders has one split, `all`.

    Raises:
        DataError: no such split, no images, or classes that the model does not know.
    """
    layout = _find_layout(root)
    name = _choose(layout, split)
    where = layout.path(name)
    scan = scan_classes(where)
    images = {label: found for label, found in scan.images.items() if found}
    if not images:
        raise _nothing(scan, where)
    check_known(list(images), classes, where)
    return file_split("all" if layout.plain else name, where, images, classes)


@dataclass(frozen=True)
class _Layout:
    """Which folder is which split; a plain folder of class folders is its own `train`."""

    root: Path
    folders: Mapping[str, str]
    notices: tuple[str, ...] = ()

    @property
    def plain(self) -> bool:
        return self.folders == {"train": ""}

    @property
    def names(self) -> str:
        """The split folders, as a person lists them."""
        return listed(f"{folder}/" for folder in self.folders.values())

    def short(self, name: str) -> str:
        """What a person calls a split's folder; empty for a folder of class folders."""
        return f"{self.folders[name]}/" if self.folders[name] else ""

    def split_name(self, name: str) -> SplitName:
        """What messages call a split."""
        return SplitName(str(self.path(name)), self.short(name))

    def path(self, name: str) -> Path:
        """Where a split's class folders lie; what is held out stays in `train`."""
        return self.root / self.folders.get(name, self.folders.get("train", ""))


def _find_layout(root: Path) -> _Layout:
    try:
        mode = root.stat().st_mode
    except FileNotFoundError as error:
        raise DataError(f"{root} does not exist", EXPECTED) from error
    except OSError as error:
        raise DataError(f"cannot read {root}: {error.strerror or error}") from error
    if not stat.S_ISDIR(mode):
        raise DataError(f"{root} is a file", f"unpack it if it is an archive; {EXPECTED}")
    entries = list_folder(root)
    folders = [entry.name for entry in entries if is_folder(entry)]
    named = {folder: SPLITS[folder.lower()] for folder in folders if folder.lower() in SPLITS}
    others = [folder for folder in folders if folder not in named]
    # A class may be called train: it holds images, where a split holds folders.
    if not named or (others and not any(_holds_folders(root / folder) for folder in named)):
        return _Layout(root, {"train": ""})
    by_split: dict[str, str] = {}
    for name in ("train", "val", "test"):
        for folder in (folder for folder, split in named.items() if split == name):
            if name in by_split:
                pair = f"{by_split[name]}/ and {folder}/"
                raise DataError(f"{root} has both {pair} for the split {name}", "keep one of them")
            by_split[name] = folder
    notices = []
    if others:
        notices.append(f"left out: folders beside {'/, '.join(named)}/: {shorten(others)}")
    stray = sum(is_image(entry.name) and not is_folder(entry) for entry in entries)
    if stray:
        notices.append(f"left out: {counted(stray, 'image')} beside the splits")
    return _Layout(root, by_split, tuple(notices))


def _holds_folders(folder: Path) -> bool:
    return any(is_folder(entry) for entry in list_folder(folder))


def _choose(layout: _Layout, split: str | None) -> str:
    """Decide which split to evaluate on."""
    if layout.plain:
        if split in (None, "all"):
            return "train"
        message = f"{layout.root} has no split {split!r}: it is a folder of class folders"
        raise DataError(message, "leave the split out to evaluate on all images")
    names = {name: layout.short(name) for name in layout.folders}
    return choose_split(layout.root, names, split)


def _nothing(scan: Scan, where: Path) -> DataError:
    """Return the error of a folder without images."""
    if scan.stray:
        images = counted(scan.stray, "image")
        return DataError(f"{where} holds {images} and no class folders with images", EXPECTED)
    if scan.other:
        hint = f"its files are {scan.kinds}; zoo reads jpg, png, webp, tiff and their like"
        return DataError(f"{where} holds no images", hint)
    return DataError(f"{where} holds no images", EXPECTED)


def _check_train(scan: Scan, where: Path) -> None:
    if not any(scan.images.values()):
        raise _nothing(scan, where)
    empty = [name for name, found in scan.images.items() if not found]
    if empty:
        message = f"{where} has class folders without images: {shorten(empty)}"
        raise DataError(message, "every folder is a class: remove these, or add images")
    if len(scan.images) == 1:
        (only,) = scan.images
        inner = _holds_folders(where / only)
        hint = f"are the class folders in {where / only}?" if inner else EXPECTED
        raise DataError(f"{where} holds only one class, {only}; two are the least", hint)
