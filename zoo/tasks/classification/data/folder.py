"""Folders of images: classes and splits, in an order independent of the file system."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from zoo.data.formats import describe_missing
from zoo.data.groups import groups_by
from zoo.data.scan import list_folder, shorten
from zoo.data.schema import Schema
from zoo.data.shards import shards_hint
from zoo.data.split import FileSplit, ImageData
from zoo.data.split_choice import choose_split, fingerprint
from zoo.data.table import is_table
from zoo.errors import DataError, counted
from zoo.tasks.classification.data.hold_out import (
    HoldOut,
    check_known,
    compare_with_train,
    complete_splits,
    file_split,
)
from zoo.tasks.classification.data.layout import (
    EXPECTED,
    SPLIT_ORDER,
    Layout,
    check_classes,
    class_first,
    find_layout,
)
from zoo.tasks.classification.data.scan import Images, Scan, scan_classes

SEGMENTATION_LAYOUT = (
    "images/ and masks/ are taken for two classes; for masks per image, choose a network of "
    "`zoo list --task semantic-segmentation`"
)


def open_folder(
    root: Path, how: HoldOut, *, name: str = "", n_classes: int | None = None
) -> ImageData:
    """Index the images of a folder, and split them for training.

    Args:
        root: a folder of class folders; or one with `train/`, optionally `val/` and `test/`, each
            of class folders, whose names may vary as `split_of` allows; or one of class folders
            that have such folders inside.
        how: to hold out validation images, where the folder has no `val/`.
        name: shown in reports; defaults to the folder's name.
        n_classes: number of classes, to choose between two readings of the folders.

    Raises:
        DataError: the folder cannot be trained on; names what is missing, and where.
    """
    layout, splits, notices = _read(root, n_classes)
    parts: dict[str, Images] = {"train": splits["train"]}
    for split in [split for split in ("val", "test") if split in splits]:
        parts[split] = {label: images for label, images in splits[split].items() if images}
        notices += compare_with_train(
            parts["train"], parts[split], layout.split_name(split), layout.split_name("train")
        )
    reason = f"{layout.names} as found"
    if layout.inner:
        reason += " in each class folder"
    groups: dict[str, str] = {}
    if how.group_by is not None:
        every = (path for part in parts.values() for images in part.values() for path, _ in images)
        groups = groups_by(how.group_by, every, root)
    own_val = "val" in parts
    origin, further = complete_splits(root, parts, how, layout.split_name("train"), groups)
    notices += further
    classes = tuple(parts["train"])
    _check_names(classes, root)
    if {name.lower() for name in classes} == {"images", "masks"}:
        notices.append(SEGMENTATION_LAYOUT)
    order = [split for split in SPLIT_ORDER if split in parts]
    return ImageData(
        name=name or root.absolute().name or str(root),
        schema=Schema(classes),
        splits={
            part: file_split(part, layout.path(part), parts[part], classes, groups)
            for part in order
        },
        fingerprint=fingerprint({part: parts[part] for part in order}),
        notices=tuple(notices),
        reason=origin or reason,
        own_val=own_val,
        root=root,
    )


def _read(root: Path, n_classes: int | None) -> tuple[Layout, dict[str, Images], list[str]]:
    """Return the layout of a folder, its images by split and class, and notices.

    Raises:
        DataError: its train split cannot be trained on, or has two readings.
    """
    layout = find_layout(root)
    if "train" not in layout.folders:
        raise DataError(f"{root} has {layout.names}, but no train/", EXPECTED)
    scans = {split: scan_classes(layout.path(split)) for split in layout.folders}
    notices = [*layout.notices]
    if layout.plain and (split_inside := class_first(layout, scans["train"])):
        layout, parts = split_inside
        notices += scans["train"].notices("")
        for scan in (scans["train"], Scan(parts["train"])):
            _check_train(scan, layout.path("train"))
        return layout, parts, notices
    for split, scan in scans.items():
        notices += [*scan.notices(layout.short(split)), *scan.flattened(layout.short(split))]
    _check_train(scans["train"], layout.path("train"))
    check_classes(layout.path("train"), scans["train"], n_classes)
    for split, scan in scans.items():
        if scan.stray and not scan.nonempty:
            hint = "arrange its images in class folders, or move it elsewhere"
            raise DataError(_no_images(scan, layout.path(split)).message, hint)
    return layout, {split: scan.images for split, scan in scans.items()}, notices


def _check_names(classes: Sequence[str], root: Path) -> None:
    """Refuse class names that a model file cannot store, before training."""
    for name in classes:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise _undecoded(os.fsencode(name), root) from error


def _undecoded(name: bytes, root: Path) -> DataError:
    """Return the error for a class folder with a name that Python has not decoded."""
    what = f"{root}: the class folder {name!r} is not valid"
    try:
        name.decode()
    except UnicodeDecodeError:
        return DataError(f"{what} UTF-8", "rename it")
    encoding = f"{what} in the encoding of the system, {sys.getfilesystemencoding()}"
    return DataError(encoding, "set LC_ALL=C.UTF-8, or PYTHONUTF8=1")


def open_folder_split(root: Path, classes: Sequence[str], split: str | None = None) -> FileSplit:
    """Index the images of a folder to evaluate a model on.

    Args:
        root: a folder as for `open_folder`.
        classes: of the model, in its order; folders are matched by name.
        split: name; None for `test`, else `val`. A folder of class folders has one split, `all`.

    Raises:
        DataError: there is no such split, no image, or a class unknown to the model.
    """
    layout = find_layout(root, classes)
    if not layout.plain:
        name = _choose(layout, split)
        path = layout.path(name)
        return _known_split(name, path, scan_classes(path), classes)
    scan = scan_classes(layout.root)
    if split_inside := class_first(layout, scan):
        layout, parts = split_inside
        name = _choose(layout, split)
        return _known_split(name, layout.root, Scan(parts[name]), classes)
    check_classes(layout.root, scan, known=classes)
    _choose(layout, split)
    return _known_split("all", layout.root, scan, classes)


def _known_split(name: str, path: Path, scan: Scan, classes: Sequence[str]) -> FileSplit:
    images = scan.nonempty
    if not images:
        raise _no_images(scan, path)
    check_known(list(images), classes, path)
    return file_split(name, path, images, classes)


def _choose(layout: Layout, split: str | None) -> str:
    """Return the split to evaluate on."""
    if layout.plain:
        if split in (None, "all"):
            return "train"
        message = f"{layout.root} has no split {split!r}: it is a folder of class folders"
        raise DataError(message, "leave the split out to evaluate on all images")
    names = {name: layout.short(name) for name in layout.inner or layout.folders}
    return choose_split(layout.root, names, split)


def _no_images(scan: Scan, path: Path) -> DataError:
    """Return the error of a folder without images."""
    if scan.stray:
        images = counted(scan.stray, "image")
        message = f"{path} contains {images} and no class folders with images"
        names = sorted(entry.name for entry in list_folder(path) if is_table(path / entry.name))
        hint = f"read the labels of a table: --data {path / names[0]}" if names else EXPECTED
        return DataError(message, hint)
    if instead := shards_hint(path):
        return DataError(f"{path} contains no images", instead)
    hint = f"its files are {scan.kinds}; "
    hint += describe_missing(scan.other) or "zoo reads jpg, png, webp, tiff and similar formats"
    return DataError(f"{path} contains no images", hint if scan.other else EXPECTED)


def _check_train(scan: Scan, path: Path) -> None:
    if not scan.nonempty:
        raise _no_images(scan, path)
    empty = [name for name, images in scan.images.items() if not images]
    if empty:
        message = f"{path} has class folders without images: {shorten(empty)}"
        hint = "every folder is a class: remove these, or add images"
        if missing := describe_missing(scan.other):
            hint = f"{missing}; {hint}"
        raise DataError(message, hint)
    if len(scan.images) == 1:
        (only,) = scan.images
        raise DataError(f"{path} has only one class, {only}; at least two are needed", EXPECTED)
