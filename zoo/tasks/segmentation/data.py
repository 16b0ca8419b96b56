"""Folders of images with masks: classes and splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from zoo.data.all_images import AllImages
from zoo.data.groups import check_sides, draw_held_out_groups, groups_by
from zoo.data.names import positions, split_of
from zoo.data.scan import is_data_folder, is_folder, list_folder, shorten
from zoo.data.split import FileSplit, ImageData, check_fraction, draw_held_out
from zoo.data.split_choice import (
    choose_split,
    describe_no_validation,
    describe_wrapper,
    fingerprint,
    listed,
)
from zoo.errors import DataError, UsageError, did_you_mean
from zoo.tasks.segmentation.classes import CLASSES, read_classes
from zoo.tasks.segmentation.masks import MaskSplit
from zoo.tasks.segmentation.pairs import (
    IMAGES,
    MASKS,
    Faults,
    MaskContent,
    Pair,
    check_indices,
    match_pairs,
    read_masks,
)
from zoo.tasks.segmentation.schema import (
    IGNORE_INDEX,
    MAX_CLASSES,
    SegmentationSchema,
    voc_color,
)

EXPECTED = (
    f"give a folder with {IMAGES}/ and {MASKS}/, or with train/ and optionally val/ and test/ "
    "that have both"
)


@dataclass(frozen=True)
class _Folder:
    """A dataset of masks.

    Args:
        root: of the data.
        folders: by split, its folder with a `/`; empty for a root without split folders.
        pairs: by split.
        schema: of the masks.
        notices: likely mistakes, one line each.
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


def open_data(
    source: Any,
    *,
    seed: int,
    val_fraction: float,
    classes: int | None,
    group_by: str | None = None,
) -> ImageData:
    """Index images and masks, and split them for training. See `BaseTask.open_data`.

    Args:
        source: a folder.
        seed: of the draw of held-out images.
        val_fraction: share to hold out; 0 for none.
        classes: number of classes without `classes.txt`.
        group_by: regular expression that finds the group in the path of an image.

    Raises:
        DataError: they cannot be trained on; lists all faults.
        UsageError: it is not a folder, or `val_fraction` is not between 0 and 1.
    """
    check_fraction(val_fraction)
    given = _root(source)
    root = _unwrapped(given)
    folders = _find_folders(root)
    if "train" not in folders:
        raise DataError(f"{root} has {listed(folders.values())}, but no train/", EXPECTED)
    data = _read(root, folders, classes)
    groups: dict[str, str] = {}
    if group_by is not None:
        names = {name: [pair.image for pair in part] for name, part in data.pairs.items()}
        groups = groups_by(group_by, chain.from_iterable(names.values()), root)
        check_sides({name: [groups[path] for path in each] for name, each in names.items()}, root)
    parts, by_split, reason = _complete_splits(data, seed, val_fraction, groups)
    order = [name for name in ("train", "val", "test") if name in parts]
    wrapped = (describe_wrapper(given, root),) if root != given else ()
    return ImageData(
        name=given.absolute().name or str(given),
        schema=data.schema,
        splits={name: data.split(name, parts[name], by_split[name]) for name in order},
        fingerprint=_fingerprint({name: parts[name] for name in order}, data.schema.classes),
        notices=(*wrapped, *data.notices),
        reason=f"{IMAGES}/ and {MASKS}/: {reason}",
        own_val="val" in folders,
        root=root,
    )


def _complete_splits(
    data: _Folder, seed: int, fraction: float, groups: Mapping[str, str]
) -> tuple[dict[str, list[Pair]], dict[str, str], str]:
    """Add `val` to the splits unless it is there or nothing is to be held out.

    Returns:
        The pairs and the folder of each split, and the origin of the splits.
    """
    parts, folders = dict(data.pairs), dict(data.folders)
    if "val" in parts:
        return parts, folders, f"{listed(folders.values())} as found"
    if not fraction:
        return parts, folders, describe_no_validation(folders["train"])
    train = parts["train"]
    drawn = _draw(train, data.root / folders["train"], seed, fraction, groups)
    parts["train"] = [pair for index, pair in enumerate(train) if index not in drawn]
    parts["val"] = [pair for index, pair in enumerate(train) if index in drawn]
    folders["val"] = folders["train"]
    suffix = f" of {folders['train']}" if folders["train"] else ""
    reason = f"{100 * fraction:g} % of the images{suffix} held out by seed {seed}"
    if groups:
        held_out, total = ({groups[pair.image] for pair in part} for part in (parts["val"], train))
        reason += f" in {len(held_out)} of {len(total)} groups"
    return parts, folders, reason


def _draw(
    train: Sequence[Pair], source: Path, seed: int, fraction: float, groups: Mapping[str, str]
) -> set[int]:
    """Return the indices of held-out images, or of whole groups of them.

    Raises:
        DataError: none can be held out.
    """
    if len(train) < 2:
        raise DataError(f"{source} has one image", "at least two are needed")
    paths = [pair.image for pair in train]
    if not groups:
        return draw_held_out(paths, seed, fraction)
    drawn = draw_held_out_groups([groups[path] for path in paths], [0] * len(paths), seed, fraction)
    if not drawn:
        raise DataError(f"all images of {source} are of one group", "give --val 0 to train on all")
    return drawn


def open_split(source: Any, classes: Sequence[str], split: str | None) -> MaskSplit:
    """Index one split, its classes matched by name. See `BaseTask.open_split`.

    Raises:
        DataError: there is no such split, it has faults, or a class is unknown to the model.
        UsageError: it is not a folder.
    """
    root = _unwrapped(_root(source))
    folders = _find_folders(root)
    if folders == {"train": ""}:
        if split not in (None, "all"):
            message = f"{root} has no split {split!r}: it is a folder of images and masks"
            raise DataError(message, "leave the split out to evaluate on all images")
        name = "train"
    else:
        name = choose_split(root, folders, split)
    data = _read(root, {name: folders[name]}, None, len(classes))
    names = data.schema.classes
    index_of = positions(classes)
    if unknown := [each for each in names if each not in index_of]:
        known = f"the model has {shorten(classes)}"
        if not (root / CLASSES).exists():
            known += f"; name the classes in {CLASSES}"
        hint = did_you_mean(unknown[0], list(classes), known)
        raise DataError(f"{root} has classes unknown to the model: {shorten(unknown)}", hint)
    renumber = None
    own = {index: index_of[each] for index, each in enumerate(names)}
    if any(index != position for index, position in own.items()):
        renumber = bytes(own.get(index, IGNORE_INDEX) for index in range(256))
    split_name = "all" if data.plain else name
    return data.split(split_name, data.pairs[name], folders[name], renumber)


def open_all(source: Any) -> AllImages | None:
    """Index every image without its mask; return None for a folder without images/ and masks/."""
    root = _unwrapped(_root(source))
    try:
        folders = _find_folders(root)
    except DataError:
        return None
    splits = []
    for name, folder in folders.items():
        paths = tuple(pair.image for pair in match_pairs(root, folder, Faults()))
        splits.append(FileSplit(name, root / folder, paths, (0,) * len(paths)))
    return AllImages(root.absolute().name or str(root), tuple(splits), (), root=root)


def is_mask_folder(source: str | Path) -> bool:
    """Whether a path has the layout that `open_data` reads."""
    try:
        return bool(_find_folders(_unwrapped(_root(source))))
    except (DataError, UsageError):
        return False


def _root(source: Any) -> Path:
    if source is None:
        message = "semantic segmentation has no demonstration set"
        raise UsageError(message, f"give --data: {EXPECTED.removeprefix('give ')}")
    if not isinstance(source, (str, Path)):
        raise UsageError(f"masks are not read from a {type(source).__name__}", EXPECTED)
    root = Path(source)
    if not root.is_dir():
        problem = "is not a folder" if root.exists() else "does not exist"
        raise DataError(f"{root} {problem}", EXPECTED)
    return root


def _unwrapped(root: Path) -> Path:
    """Return the folder with images and masks, or splits of them, that others wrap; or the root."""
    current = root
    while not (current / CLASSES).exists():
        names = [entry.name for entry in list_folder(current) if is_data_folder(entry)]
        if len(names) != 1 or split_of(names[0]) or names[0] in (IMAGES, MASKS):
            return current if len(names) > 1 else root
        if (current / names[0]).is_symlink():
            return root
        current /= names[0]
    return current


def _find_folders(root: Path) -> dict[str, str]:
    """Return the folder of each split, with a `/`; empty for a root with `images/` and `masks/`.

    Raises:
        DataError: there is none, or one that is not recognised.
    """
    names = [entry.name for entry in list_folder(root) if is_folder(entry)]
    if IMAGES in names and MASKS in names:
        _refuse_inner_splits(root)
        return {"train": ""}
    folders: dict[str, str] = {}
    others = []
    for name in names:
        split = split_of(name)
        inner = {entry.name for entry in list_folder(root / name) if is_folder(entry)}
        if not inner & {IMAGES, MASKS}:
            continue
        if split is None:
            others.append(f"{name}/")
            continue
        if split in folders:
            pair = f"{folders[split]} and {name}/"
            raise DataError(f"{root} has both {pair} for the split {split}", "remove one")
        if missing := {IMAGES, MASKS} - inner:
            raise DataError(f"{root / name} has no {min(missing)}/", EXPECTED)
        folders[split] = f"{name}/"
    if not folders:
        has = f"it has {shorten(f'{name}/' for name in names)}" if names else "it has no folders"
        raise DataError(f"{root} has no {IMAGES}/ and {MASKS}/; {has}", EXPECTED)
    if others and "val" not in folders:
        message = f"{root} has {IMAGES}/ and {MASKS}/ in {shorten(others)} too"
        raise DataError(message, "rename it val/ or test/ if it is a split, or move it away")
    return {split: folders[split] for split in ("train", "val", "test") if split in folders}


def _refuse_inner_splits(root: Path) -> None:
    """Refuse splits inside `images/`, which would be mixed.

    Raises:
        DataError: every folder in `images/` is a split.
    """
    inner = [entry.name for entry in list_folder(root / IMAGES) if is_folder(entry)]
    if len(inner) > 1 and all(map(split_of, inner)):
        name = inner[0]
        message = f"{root / IMAGES} has the splits {listed(f'{name}/' for name in inner)}"
        hint = f"arrange them as {name}/{IMAGES}/ and {name}/{MASKS}/"
        raise DataError(message, hint)


def _read(
    root: Path, folders: Mapping[str, str], count: int | None, most: int | None = None
) -> _Folder:
    """Match and check images and masks.

    Args:
        root: of the data.
        folders: of the splits.
        count: number of classes without `classes.txt`; None to infer it from the masks.
        most: number of classes of the model; a larger palette is not taken for the classes.

    Raises:
        DataError: lists all faults.
    """
    faults = Faults()
    pairs = {name: match_pairs(root, folder, faults) for name, folder in folders.items()}
    masks = {name: read_masks(root, folders[name], part, faults) for name, part in pairs.items()}
    schema, notices = _schema(root, [mask for part in masks.values() for mask in part], count, most)
    for name, part in pairs.items():
        check_indices(folders[name], part, masks[name], len(schema.classes), faults)
    faults.raise_all(root)
    for name, part in pairs.items():
        if not part:
            raise DataError(f"{root / folders[name] / IMAGES} has no images", EXPECTED)
        if not any(mask.indices - {IGNORE_INDEX} for mask in masks[name]):
            masked = f"every pixel in {root / folders[name] / MASKS} is {IGNORE_INDEX}"
            raise DataError(f"{masked}, which is ignored", "write masks with indices of classes")
    if len(schema.classes) < 2:
        message = f"{root} has only one class, {schema.classes[0]}"
        raise DataError(message, "at least two are needed")
    return _Folder(root, folders, pairs, schema, notices)


def _schema(
    root: Path, masks: Sequence[MaskContent], count: int | None, most: int | None
) -> tuple[SegmentationSchema, tuple[str, ...]]:
    """Return classes and colours, from `classes.txt` or else from the masks; and notices."""
    palette = next((mask.palette for mask in masks if mask.palette), ())
    file = root / CLASSES
    if file.exists():
        names, colors = read_classes(file)
        notices: tuple[str, ...] = ()
    else:
        last = max((max(mask.indices - {IGNORE_INDEX}, default=0) for mask in masks), default=0)
        number, reason = last + 1, "as many as the masks have indices"
        # A palette padded to 256 entries does not count the classes.
        if number < len(palette) <= min(MAX_CLASSES, most or MAX_CLASSES):
            number, reason = len(palette), "as many as the palette of the masks has colours"
        if count is not None:
            number, reason = count, "as given"
        number = min(number, MAX_CLASSES)
        names, colors = tuple(f"class {index}" for index in range(number)), (None,) * number
        span = f"class 0 to class {number - 1}"
        notices = (f"there is no {CLASSES}, so classes are named {span}, {reason}",)
    filled = [
        color or (palette[index] if index < len(palette) else voc_color(index))
        for index, color in enumerate(colors)
    ]
    return SegmentationSchema(names, tuple(filled)), notices


def _fingerprint(parts: Mapping[str, Sequence[Pair]], classes: Sequence[str]) -> str:
    """Hash the names and sizes of images and masks, and the classes."""
    files: dict[str, dict[str, list[tuple[str, int]]]] = {
        name: {
            IMAGES: [(pair.image, pair.bytes[0]) for pair in pairs],
            MASKS: [(pair.mask, pair.bytes[1]) for pair in pairs],
        }
        for name, pairs in parts.items()
    }
    names = [(name, index) for index, name in enumerate(classes)]
    return fingerprint({**files, CLASSES: {CLASSES: names}})
