"""Folders of images: which classes and splits they hold, decided once and the same everywhere."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.data.scan import (
    Images,
    Scan,
    counted,
    is_folder,
    is_image,
    list_folder,
    scan_classes,
    shorten,
)
from zoo.errors import DataError, UsageError, did_you_mean

SPLITS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
EMBEDDED = Path(__file__).with_name("clipart10")
EXPECTED = "give a folder of class folders, or one with train/ and val/ of class folders"


@dataclass(frozen=True)
class Split:
    """Images and their labels, in order of class and name.

    Args:
        name: `train`, `val`, `test`, or `all` where nothing is held out.
        root: the folder that the paths are relative to.
        paths: of each image, with `/` on every system; the first step is its class folder.
        labels: of each image, a position in the classes.
    """

    name: str
    root: Path
    paths: tuple[str, ...]
    labels: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.paths)

    def path(self, index: int) -> Path:
        """Where an image lies."""
        return self.root / self.paths[index]

    def counts(self, n_classes: int) -> tuple[int, ...]:
        """How many images each class has."""
        counts = [0] * n_classes
        for label in self.labels:
            counts[label] += 1
        return tuple(counts)


@dataclass(frozen=True)
class ImageData:
    """A folder of images, split for training.

    Args:
        name: how a person would call it.
        classes: sorted by name; of the train split, and the same for all.
        splits: `train` and `val`, and `test` where the folder holds one.
        fingerprint: sha256 over every image's split, path, class and size in bytes; the same
            wherever the folder lies.
        notices: what was left out or looks odd, one line each.
        embedded: whether these are the images that zoo brings along.
        reason: how the split came about.
    """

    name: str
    classes: tuple[str, ...]
    splits: Mapping[str, Split]
    fingerprint: str
    notices: tuple[str, ...]
    embedded: bool
    reason: str


def open_data(source: str | Path | None, *, seed: int = 0, val_fraction: float = 0.2) -> ImageData:
    """Find the images of a folder, and split them for training.

    Args:
        source: a folder of class folders; or one with `train/`, maybe `val/` (or `valid/`, or
            `validation/`) and maybe `test/`, each of class folders; None for the embedded images.
        seed: decides which images are held out where the folder has no `val/`.
        val_fraction: the share of each class that is held out there.

    Raises:
        DataError: the folder cannot be trained on; says what is missing, and where.
        UsageError: `val_fraction` is not between 0 and 1.
    """
    if not 0 < val_fraction < 1:
        raise UsageError(f"the validation share {val_fraction} is not between 0 and 1")
    root = EMBEDDED if source is None else Path(source)
    layout = _find_layout(root)
    if "train" not in layout.folders:
        raise DataError(f"{root} has {layout.names}, but no train/", EXPECTED)
    scans = {name: scan_classes(layout.path(name)) for name in layout.folders}
    notices = [*layout.notices]
    for name, scan in scans.items():
        notices += scan.notices(layout.short(name))
    _check_train(scans["train"], layout.path("train"))
    parts: dict[str, Images] = {"train": scans["train"].images}
    for name in [name for name in ("val", "test") if name in scans]:
        parts[name] = {label: found for label, found in scans[name].images.items() if found}
        notices += _check_held(parts, name, layout)
    reason = f"{layout.names} as found"
    if "val" not in parts:
        parts["train"], parts["val"] = _hold_out(parts["train"], seed, val_fraction)
        notices += _check_drawn(parts, layout)
        inside = f" of {layout.short('train')}" if layout.short("train") else ""
        reason = f"{100 * val_fraction:g} % of each class{inside} held out by seed {seed}"
    classes = tuple(parts["train"])
    _check_names(classes, root)
    order = [name for name in ("train", "val", "test") if name in parts]
    return ImageData(
        name="clipart10 (embedded)" if source is None else root.absolute().name or str(root),
        classes=classes,
        splits={name: _split(name, layout.path(name), parts[name], classes) for name in order},
        fingerprint=_fingerprint({name: parts[name] for name in order}),
        notices=tuple(notices),
        embedded=source is None,
        reason=reason,
    )


def _check_names(classes: Sequence[str], root: Path) -> None:
    """Refuse names that no model file can hold, before anything is trained on them."""
    for name in classes:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            message = f"{root}: the class folder {os.fsencode(name)!r} is not valid UTF-8"
            raise DataError(message, "rename it") from error


def open_split(
    source: str | Path | None, classes: Sequence[str], split: str | None = None
) -> Split:
    """Find the images to evaluate a model on.

    Args:
        source: a folder as for `open_data`; None for the embedded images.
        classes: the model's, in its order; labels point into them by name.
        split: which one; None for `test` where there is one, else `val`. A folder of class
            folders has one split, `all`.

    Raises:
        DataError: no such split, no images, or classes that the model does not know.
    """
    layout = _find_layout(EMBEDDED if source is None else Path(source))
    name = _choose(layout, split)
    where = layout.path(name)
    scan = scan_classes(where)
    images = {label: found for label, found in scan.images.items() if found}
    if not images:
        raise _nothing(scan, where)
    unknown = [label for label in images if label not in classes]
    if unknown:
        hint = did_you_mean(unknown[0], classes, f"it knows {shorten(classes)}")
        message = f"{where} holds classes that the model does not know: {shorten(unknown)}"
        raise DataError(message, hint)
    return _split("all" if layout.plain else name, where, images, classes)


@dataclass(frozen=True)
class _Layout:
    """Which folder holds which split; a plain folder of class folders is its own `train`."""

    root: Path
    folders: Mapping[str, str]
    notices: tuple[str, ...] = ()

    @property
    def plain(self) -> bool:
        return self.folders == {"train": ""}

    @property
    def names(self) -> str:
        """The split folders, as a person lists them."""
        *some, last = [f"{folder}/" for folder in self.folders.values()]
        return f"{', '.join(some)} and {last}" if some else last

    def short(self, name: str) -> str:
        """What a person calls a split's folder; empty for a folder of class folders."""
        return f"{self.folders[name]}/" if self.folders[name] else ""

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
    if split is None:
        for name in ("test", "val"):
            if name in layout.folders:
                return name
        message = f"{layout.root} has {layout.names}, but no test/ or val/"
        raise DataError(message, "name the split train to evaluate on what a model was trained on")
    name = SPLITS.get(split.lower(), split)
    if name not in layout.folders:
        raise DataError(f"{layout.root} has no split {split!r}", f"it has {layout.names}")
    return name


def _nothing(scan: Scan, where: Path) -> DataError:
    """Say why there is nothing to learn from."""
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


def _check_held(parts: Mapping[str, Images], name: str, layout: _Layout) -> list[str]:
    """Hold a split that came with the folder against the train split."""
    train, held = parts["train"], parts[name]
    here, there = layout.path(name), layout.path("train")
    if not held:
        raise DataError(f"{here} holds no images", f"without it, some of {there} is held out")
    unknown = [label for label in held if label not in train]
    if unknown:
        hint = did_you_mean(unknown[0], list(train), f"{there} has {shorten(train)}")
        message = f"{here} holds classes that {there} does not: {shorten(unknown)}"
        raise DataError(message, hint)
    notices = []
    missing = [label for label in train if label not in held]
    if missing:
        lacks = f"{len(missing)} of {len(train)} classes"
        notices.append(f"{layout.short(name)} has no images of {lacks}: {shorten(missing)}")
    twice = sum(len(set(found).intersection(train[label])) for label, found in held.items())
    if twice:
        both = f"{layout.short('train')} and {layout.short(name)}"
        notices.append(f"{both} share {counted(twice, 'image')} of the same name and size")
    return notices


def _hold_out(images: Images, seed: int, fraction: float) -> tuple[Images, Images]:
    """Draw a share of every class, at least one image and never all.

    Each image's place in the draw depends on the seed and its own path alone, so that an image
    more or less moves no other but the last drawn.
    """
    kept: Images = {}
    held: Images = {}
    for label, found in images.items():
        count = min(max(round(len(found) * fraction), 1), len(found) - 1)
        ranked = sorted(found, key=lambda image: _draw(seed, image[0]))
        drawn = set(ranked[:count])
        kept[label] = [image for image in found if image not in drawn]
        held[label] = [image for image in found if image in drawn]
    return kept, held


def _draw(seed: int, path: str) -> bytes:
    return hashlib.sha256(f"{seed}\0".encode() + os.fsencode(path)).digest()


def _check_drawn(parts: Mapping[str, Images], layout: _Layout) -> list[str]:
    lone = [label for label, found in parts["val"].items() if not found]
    if len(lone) == len(parts["val"]):
        hint = "two are the least, one to train and one to validate"
        raise DataError(f"every class of {layout.path('train')} has a single image", hint)
    if not lone:
        return []
    single = counted(len(lone), "class has", "classes have")
    return [f"{single} a single image, which trains and is not validated: {shorten(lone)}"]


def _split(name: str, root: Path, images: Images, classes: Sequence[str]) -> Split:
    label_of = {label: index for index, label in enumerate(classes)}
    return Split(
        name=name,
        root=root,
        paths=tuple(path for found in images.values() for path, _ in found),
        labels=tuple(label_of[label] for label, found in images.items() for _ in found),
    )


def _fingerprint(parts: Mapping[str, Images]) -> str:
    digest = hashlib.sha256()
    for name, images in parts.items():
        for label, found in images.items():
            for path, size in found:
                digest.update(os.fsencode(f"{name}\0{path}\0{label}\0{size}\0"))
    return digest.hexdigest()
