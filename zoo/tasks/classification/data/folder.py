"""Folders of images: classes and splits, in an order independent of the file system."""

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
    check_known,
    check_single_images,
    compare_with_train,
    describe_hold_out,
    file_split,
    hold_out,
)

EXPECTED = "give a folder of class folders, or one with train/ and val/ of class folders"
SEGMENTATION_LAYOUT = (
    "images/ and masks/ are taken for two classes; for masks per image, choose a network of "
    "`zoo list --task semantic-segmentation`"
)


def open_folder(root: Path, *, seed: int, val_fraction: float, name: str = "") -> ImageData:
    """Index the images of a folder, and split them for training.

    Args:
        root: a folder of class folders; or one with `train/`, optionally `val/` (or `valid/`, or
            `validation/`) and `test/`, each of class folders.
        seed: of the draw of held-out images where the folder has no `val/`.
        val_fraction: share of each class to hold out, between 0 and 1.
        name: shown in reports; defaults to the folder's name.

    Raises:
        DataError: the folder cannot be trained on; names what is missing, and where.
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
        parts[split] = scans[split].nonempty
        notices += compare_with_train(
            parts["train"], parts[split], layout.split_name(split), layout.split_name("train")
        )
    reason = f"{layout.names} as found"
    if "val" not in parts:
        parts["train"], parts["val"] = hold_out(parts["train"], seed, val_fraction)
        lone = [label for label, images in parts["val"].items() if not images]
        notices += check_single_images(lone, len(parts["val"]), str(layout.path("train")))
        reason = describe_hold_out(layout.short("train"), seed, val_fraction)
    classes = tuple(parts["train"])
    _check_names(classes, root)
    if {name.lower() for name in classes} == {"images", "masks"}:
        notices.append(SEGMENTATION_LAYOUT)
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
    """Refuse class names that a model file cannot store, before training."""
    for name in classes:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            message = f"{root}: the class folder {os.fsencode(name)!r} is not valid UTF-8"
            raise DataError(message, "rename it") from error


def open_folder_split(root: Path, classes: Sequence[str], split: str | None = None) -> FileSplit:
    """Index the images of a folder to evaluate a model on.

    Args:
        root: a folder as for `open_folder`.
        classes: of the model, in its order; folders are matched by name.
        split: name; None for `test`, else `val`. A folder of class folders has one split, `all`.

    Raises:
        DataError: there is no such split, no image, or a class unknown to the model.
    """
    layout = _find_layout(root)
    name = _choose(layout, split)
    path = layout.path(name)
    scan = scan_classes(path)
    images = scan.nonempty
    if not images:
        raise _no_images(scan, path)
    check_known(list(images), classes, path)
    return file_split("all" if layout.plain else name, path, images, classes)


@dataclass(frozen=True)
class _Layout:
    """The folder of each split; a plain folder of class folders is its own `train`."""

    root: Path
    folders: Mapping[str, str]
    notices: tuple[str, ...] = ()

    @property
    def plain(self) -> bool:
        return self.folders == {"train": ""}

    @property
    def names(self) -> str:
        """The split folders, listed for messages."""
        return listed(f"{folder}/" for folder in self.folders.values())

    def short(self, name: str) -> str:
        """Return the relative folder of a split; empty for a folder of class folders."""
        return f"{self.folders[name]}/" if self.folders[name] else ""

    def split_name(self, name: str) -> SplitName:
        """Return the names of a split for messages."""
        return SplitName(str(self.path(name)), self.short(name))

    def path(self, name: str) -> Path:
        """Return the folder of a split's class folders; a held-out `val` shares that of `train`."""
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
    # A class may be called train: it contains images, whereas a split contains folders.
    if not named or (others and not any(_has_folders(root / folder) for folder in named)):
        return _Layout(root, {"train": ""})
    by_split: dict[str, str] = {}
    for name in ("train", "val", "test"):
        for folder in (folder for folder, split in named.items() if split == name):
            if name in by_split:
                pair = f"{by_split[name]}/ and {folder}/"
                raise DataError(f"{root} has both {pair} for the split {name}", "remove one")
            by_split[name] = folder
    notices = []
    if others:
        notices.append(f"skipped: folders beside {'/, '.join(named)}/: {shorten(others)}")
    stray = sum(is_image(entry.name) and not is_folder(entry) for entry in entries)
    if stray:
        notices.append(f"skipped: {counted(stray, 'image')} beside the splits")
    return _Layout(root, by_split, tuple(notices))


def _has_folders(folder: Path) -> bool:
    return any(is_folder(entry) for entry in list_folder(folder))


def _choose(layout: _Layout, split: str | None) -> str:
    """Return the split to evaluate on."""
    if layout.plain:
        if split in (None, "all"):
            return "train"
        message = f"{layout.root} has no split {split!r}: it is a folder of class folders"
        raise DataError(message, "leave the split out to evaluate on all images")
    names = {name: layout.short(name) for name in layout.folders}
    return choose_split(layout.root, names, split)


def _no_images(scan: Scan, path: Path) -> DataError:
    """Return the error of a folder without images."""
    if scan.stray:
        images = counted(scan.stray, "image")
        message = f"{path} contains {images} and no class folders with images"
        return DataError(message, EXPECTED)
    hint = f"its files are {scan.kinds}; zoo reads jpg, png, webp, tiff and similar formats"
    return DataError(f"{path} contains no images", hint if scan.other else EXPECTED)


def _check_train(scan: Scan, path: Path) -> None:
    if not scan.nonempty:
        raise _no_images(scan, path)
    empty = [name for name, images in scan.images.items() if not images]
    if empty:
        message = f"{path} has class folders without images: {shorten(empty)}"
        raise DataError(message, "every folder is a class: remove these, or add images")
    if len(scan.images) == 1:
        (only,) = scan.images
        nested = _has_folders(path / only)
        hint = f"are the class folders in {path / only}?" if nested else EXPECTED
        raise DataError(f"{path} has only one class, {only}; at least two are needed", hint)
