"""Folders of images and of masks beside them: classes, splits and faults."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.data.all_images import AllImages
from zoo.data.scan import is_folder, list_folder, shorten
from zoo.data.split import SPLITS, FileSplit, ImageData, draw_held
from zoo.data.splitting import choose_split, fingerprint, listed
from zoo.errors import DataError, UsageError, did_you_mean
from zoo.tasks.segmentation.masks import MaskSplit
from zoo.tasks.segmentation.pairs import (
    IMAGES,
    MASKS,
    Faults,
    Pair,
    Seen,
    check_indices,
    look_at,
    match,
)
from zoo.tasks.segmentation.schema import (
    IGNORE_INDEX,
    MAX_CLASSES,
    SegmentationSchema,
    voc_color,
)

CLASSES = "classes.txt"
EXPECTED = (
    f"give a folder with {IMAGES}/ and {MASKS}/, or with train/ and maybe val/ and test/ that have "
    "them"
)


@dataclass(frozen=True)
class _Folder:
    """A data set of masks.

    Args:
        root: of it.
        folders: by split, its folder with a `/`; empty for one that is its own `train`.
        pairs: by split.
        schema: of the masks.
        notices: for people.
    """

    root: Path
    folders: Mapping[str, str]
    pairs: Mapping[str, list[Pair]]
    schema: SegmentationSchema
    notices: tuple[str, ...]

    @property
    def plain(self) -> bool:
        return self.folders == {"train": ""}

    def split(
        self, name: str, pairs: Sequence[Pair], folder: str, renumber: bytes | None = None
    ) -> MaskSplit:
        images, masks = tuple(p.image for p in pairs), tuple(p.mask for p in pairs)
        return MaskSplit(name, self.root / folder, images, masks, renumber)


def open_data(source: Any, *, seed: int, val_fraction: float, classes: int | None) -> ImageData:
    """Index images and masks, and split them for training. See `BaseTask.open_data`.

    Raises:
        DataError: they cannot be trained on; names all that is wrong with them.
        UsageError: it is no folder, or `val_fraction` is not between 0 and 1.
    """
    if not 0 < val_fraction < 1:
        raise UsageError(f"the validation share {val_fraction} is not between 0 and 1")
    root = _root(source)
    folders = _find_folders(root)
    if "train" not in folders:
        there = listed(folders.values())
        raise DataError(f"{root} has {there}, but no train/", EXPECTED)
    found = _read(root, folders, classes)
    parts, where = dict(found.pairs), dict(folders)
    reason = f"{listed(folders.values())} as found"
    if "val" not in parts:
        train = parts["train"]
        if len(train) < 2:
            raise DataError(f"{root / folders['train']} has one image", "two are the least")
        drawn = draw_held([pair.image for pair in train], seed, val_fraction)
        parts["train"] = [pair for index, pair in enumerate(train) if index not in drawn]
        parts["val"] = [pair for index, pair in enumerate(train) if index in drawn]
        where["val"] = where["train"]
        inside = f" of {folders['train']}" if folders["train"] else ""
        reason = f"{100 * val_fraction:g} % of the images{inside} held out by seed {seed}"
    order = [name for name in ("train", "val", "test") if name in parts]
    return ImageData(
        name=root.absolute().name or str(root),
        schema=found.schema,
        splits={name: found.split(name, parts[name], where[name]) for name in order},
        fingerprint=_fingerprint({name: parts[name] for name in order}, found.schema.classes),
        notices=found.notices,
        reason=f"{IMAGES}/ and {MASKS}/: {reason}",
    )


def open_split(source: Any, classes: Sequence[str], split: str | None) -> MaskSplit:
    """Index one split, its classes matched by name. See `BaseTask.open_split`.

    Raises:
        DataError: there is no such split, it cannot be used, or has classes that the model has not.
        UsageError: it is no folder.
    """
    root = _root(source)
    folders = _find_folders(root)
    if folders == {"train": ""}:
        if split not in (None, "all"):
            message = f"{root} has no split {split!r}: it is a folder of images and masks"
            raise DataError(message, "leave the split out to evaluate on all images")
        name = "train"
    else:
        name = choose_split(root, folders, split)
    found = _read(root, {name: folders[name]}, None, len(classes))
    own = found.schema.classes
    if unknown := [each for each in own if each not in classes]:
        known = f"it knows {shorten(classes)}"
        if not (root / CLASSES).exists():
            known += f"; name the classes in {CLASSES}"
        hint = did_you_mean(unknown[0], list(classes), known)
        message = f"{root} has classes that the model does not know: {shorten(unknown)}"
        raise DataError(message, hint)
    renumber = None
    if own != tuple(classes[: len(own)]):
        positions = {index: list(classes).index(each) for index, each in enumerate(own)}
        renumber = bytes(positions.get(index, IGNORE_INDEX) for index in range(256))
    shown = "all" if found.plain else name
    return found.split(shown, found.pairs[name], folders[name], renumber)


def open_all(source: Any) -> AllImages | None:
    """Index every image, masks left aside; None for a folder that is none of images and masks."""
    root = _root(source)
    try:
        folders = _find_folders(root)
    except DataError:
        return None
    splits = []
    for name, folder in folders.items():
        paths = tuple(pair.image for pair in match(root, folder, Faults()))
        splits.append(FileSplit(name, root / folder, paths, (0,) * len(paths)))
    return AllImages(root.absolute().name or str(root), tuple(splits), ())


def _root(source: Any) -> Path:
    if source is None:
        message = "semantic segmentation has no demonstration set: no masks come with zoo"
        raise UsageError(message, f"give --data: {EXPECTED.removeprefix('give ')}")
    if not isinstance(source, (str, Path)):
        raise UsageError(f"masks are not read from a {type(source).__name__}", EXPECTED)
    root = Path(source)
    if not root.is_dir():
        what = "is no folder" if root.exists() else "does not exist"
        raise DataError(f"{root} {what}", EXPECTED)
    return root


def _find_folders(root: Path) -> dict[str, str]:
    """Return the folder of each split, with a `/`; empty for `images/` and `masks/` themselves.

    Raises:
        DataError: there are none.
    """
    names = [entry.name for entry in list_folder(root) if is_folder(entry)]
    if IMAGES in names and MASKS in names:
        return {"train": ""}
    folders: dict[str, str] = {}
    for name in names:
        split = SPLITS.get(name.lower())
        inner = {entry.name for entry in list_folder(root / name) if is_folder(entry)}
        if split is None or not inner & {IMAGES, MASKS}:
            continue
        if split in folders:
            pair = f"{folders[split]} and {name}/"
            raise DataError(f"{root} has both {pair} for the split {split}", "keep one of them")
        if missing := {IMAGES, MASKS} - inner:
            raise DataError(f"{root / name} has no {min(missing)}/", EXPECTED)
        folders[split] = f"{name}/"
    if not folders:
        has = f"it has {shorten(f'{name}/' for name in names)}" if names else "it has no folders"
        raise DataError(f"{root} has no {IMAGES}/ and {MASKS}/; {has}", EXPECTED)
    return {split: folders[split] for split in ("train", "val", "test") if split in folders}


def _read(
    root: Path, folders: Mapping[str, str], count: int | None, most: int | None = None
) -> _Folder:
    """Match and check the images and masks of splits.

    Args:
        root: of the data.
        folders: of the splits.
        count: how many classes there are, where no file names them; None for as many as are seen.
        most: without names, the classes that a model has; a palette of more is no sign of more.

    Raises:
        DataError: names all that is wrong.
    """
    faults = Faults()
    pairs = {name: match(root, folder, faults) for name, folder in folders.items()}
    seen = {name: look_at(root, folders[name], found, faults) for name, found in pairs.items()}
    schema, notices = _schema(root, [each for part in seen.values() for each in part], count, most)
    for name, found in pairs.items():
        check_indices(folders[name], found, seen[name], len(schema.classes), faults)
    faults.raise_all(root)
    for name, found in pairs.items():
        if not found:
            raise DataError(f"{root / folders[name] / IMAGES} has no images", EXPECTED)
        if not any(each.indices - {IGNORE_INDEX} for each in seen[name]):
            where = root / folders[name] / MASKS
            raise DataError(f"every pixel in {where} is {IGNORE_INDEX}, which is ignored")
    return _Folder(root, folders, pairs, schema, notices)


def _schema(
    root: Path, seen: Sequence[Seen], count: int | None, most: int | None
) -> tuple[SegmentationSchema, tuple[str, ...]]:
    """Return classes and colours, from `classes.txt` or else from the masks; and notices."""
    palette = next((each.palette for each in seen if each.palette), ())
    file = root / CLASSES
    if file.exists():
        names, colors = _read_classes(file)
        notices: tuple[str, ...] = ()
    else:
        used = max((max(each.indices - {IGNORE_INDEX}, default=0) for each in seen), default=0)
        stated, why = used + 1, "as many as the masks have indices"
        # Of 256 entries most are there because a palette has that many.
        if len(palette) <= min(MAX_CLASSES, most or MAX_CLASSES) and len(palette) > stated:
            stated, why = len(palette), "as many as the palette of the masks has colours"
        if count is not None:
            stated, why = count, "as given"
        stated = min(stated, MAX_CLASSES)
        names, colors = tuple(f"class {index}" for index in range(stated)), (None,) * stated
        last = f"class 0 to class {stated - 1}"
        notices = (f"there is no {CLASSES}, so classes are named {last}, {why}",)
    if len(names) < 2:
        raise DataError(f"{root} has only one class, {names[0]}", "two are the least")
    filled = [
        color or (palette[index] if index < len(palette) else voc_color(index))
        for index, color in enumerate(colors)
    ]
    return SegmentationSchema(names, tuple(filled)), notices


def _read_classes(file: Path) -> tuple[tuple[str, ...], tuple[str | None, ...]]:
    """Read names and colours: a line for each index, `name` or `name #rrggbb`.

    Raises:
        DataError: it cannot be read, or a name is missing or there twice.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {file}: {error}", "write it in UTF-8") from error
    names: list[str] = []
    colors: list[str | None] = []
    for number, line in enumerate(lines, start=1):
        found = re.fullmatch(r"\s*(.*?)(?:\s+(#[0-9a-fA-F]{6}))?\s*", line)
        assert found is not None
        name, color = found.groups()
        if not name or name in names:
            what = f"names {name!r} twice" if name else "has no name"
            raise DataError(f"{file}, line {number} {what}", "line by line: the name of each index")
        names.append(name)
        colors.append(color.lower() if color else None)
    if not 0 < len(names) <= MAX_CLASSES:
        hint = f"1 to {MAX_CLASSES} are possible; {IGNORE_INDEX} is ignored"
        raise DataError(f"{file} names {len(names)} classes", hint)
    return tuple(names), tuple(colors)


def _fingerprint(parts: Mapping[str, Sequence[Pair]], classes: Sequence[str]) -> str:
    """Digest what tells these images and masks from others."""
    files: dict[str, dict[str, list[tuple[str, int]]]] = {
        name: {
            IMAGES: [(pair.image, pair.bytes[0]) for pair in pairs],
            MASKS: [(pair.mask, pair.bytes[1]) for pair in pairs],
        }
        for name, pairs in parts.items()
    }
    names = [(name, index) for index, name in enumerate(classes)]
    return fingerprint({**files, CLASSES: {CLASSES: names}})
