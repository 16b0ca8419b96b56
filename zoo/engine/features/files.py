"""Files of features that `zoo embed` wrote, as the data of a training."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from zoo.data.names import sort_classes
from zoo.data.split import Split
from zoo.engine.backends.choice import AUTO, TORCH
from zoo.engine.features.fingerprint import network_facts
from zoo.engine.runtime.network import Network
from zoo.errors import DataError, UsageError, WeightsError, counted
from zoo.files import canonical_json, parse_json
from zoo.spec import Preprocess
from zoo.tensorfile import map_tensors

SUFFIX = ".safetensors"
UNLABELLED = -1
SPLITS = ("train", "val", "test")
# Settings that decide what features mean; others change their last bits.
MEANING = ("kwargs", "weights", "preprocess")
BLOCK_ROWS = 4096

Blocks = Iterator[tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class FeatureSplit(Split):
    """The rows of one split, whose images are elsewhere.

    Args:
        name: of the split.
        by_class: number of rows of each class.
    """

    name: str
    by_class: tuple[int, ...]

    @property
    def targets(self) -> Sequence[int]:  # type: ignore[override]
        """A placeholder for each row."""
        return range(sum(self.by_class))

    def where(self, index: int) -> str:
        """Return the number of a row."""
        return f"row {index} of {self.name}"

    def image(self, index: int) -> Image.Image:
        """Raise an error.

        Raises:
            DataError: features have no images.
        """
        raise DataError(f"{self.where(index)} has features, and no image")

    def counts(self, n_classes: int) -> tuple[int, ...]:
        """Return the number of rows of each class."""
        return self.by_class


@dataclass(frozen=True)
class FeatureFiles:
    """Files of features of one network.

    Args:
        folder: of the files, or the only one.
        paths: of the files, in order.
        about: metadata that all of them share.
        width: number of features.
        classes: names in the order of the labels.
        splits: those that have rows.
        unlabelled: number of rows without a label, which no split contains.
        seed: of the rows that are held out.
        val_fraction: share of the rows to hold out of files without splits; 0 if all have splits.
        fingerprint: sha256 that identifies the files' rows and labels.
    """

    folder: Path
    paths: tuple[Path, ...]
    about: dict[str, Any]
    width: int
    classes: tuple[str, ...]
    splits: dict[str, FeatureSplit]
    unlabelled: int
    seed: int
    val_fraction: float
    fingerprint: str

    @classmethod
    def open(cls, folder: Path, seed: int, val_fraction: float) -> FeatureFiles:
        """Read the metadata of all files, one after the other.

        Raises:
            DataError: there are none, or they have no labels.
            UsageError: they were computed with different settings.
            WeightsError: one is damaged.
        """
        paths = find_files(folder)
        about, counts, names, widths = None, _Counts(), set(), set()
        digest = hashlib.sha256()
        for path in paths:
            metadata = read_metadata(path)
            about = about or _shared(metadata)
            if changed := differences(about, metadata):
                message = f"{path} and {paths[0]} were computed with different settings"
                hint = "compute them again, into another folder"
                raise UsageError(f"{message}: {', '.join(changed)}", hint)
            labels = map_tensors(path).tensors
            widths.add(labels["features"].shape[1])
            names |= set(metadata["classes"])
            counts.add(metadata, labels.get("labels"), seed, val_fraction)
            content = labels.get("labels", torch.zeros(0)).numpy().tobytes()
            described = canonical_json([metadata["paths"], metadata["classes"]])
            digest.update(described.encode(errors="backslashreplace") + content)
        classes = tuple(sort_classes(names))
        if len(classes) < 2:
            message = f"{folder} has labels of {counted(len(classes), 'class')}"
            raise DataError(message, "a training needs two; shards have them as .cls members")
        assert about is not None
        if len(widths) > 1:
            raise DataError(f"the files of {folder} have different numbers of features")
        splits = counts.splits(classes)
        if "train" not in splits:
            raise DataError(f"{folder} has no rows to train on")
        return cls(
            folder,
            paths,
            about,
            widths.pop(),
            classes,
            splits,
            counts.unlabelled,
            seed,
            counts.fraction(val_fraction),
            digest.hexdigest(),
        )

    @property
    def preprocess(self) -> Preprocess:
        """Transform of images into inputs of the network."""
        return Preprocess(**self.about["preprocess"])

    @property
    def precision(self) -> str:
        """Precision that the features were computed in."""
        return str(self.about["precision"])

    def blocks(self, path: Path, split: str) -> Blocks:
        """Yield the rows of a split in a file: features `[rows, width]`, and labels `[rows]`."""
        metadata, tensors = read_metadata(path), map_tensors(path).tensors
        if "labels" not in tensors:
            return
        number = {name: index for index, name in enumerate(self.classes)}
        classes = torch.tensor([number[name] for name in metadata["classes"]])
        chosen = torch.tensor(
            [each == split for each in row_splits(metadata, self.seed, self.val_fraction)]
        )
        chosen &= tensors["labels"] != UNLABELLED
        rows = torch.nonzero(chosen).flatten()
        for part in rows.split(BLOCK_ROWS):
            yield tensors["features"][part], classes[tensors["labels"][part]]

    def check(self, network: Network, batch: int) -> None:
        """Check that the features are those of a network.

        Args:
            network: on its device.
            batch: images per forward pass.

        Raises:
            UsageError: they are of other weights, or of another network.
        """
        facts = json.loads(canonical_json(network_facts(network, batch)))
        found = self.about["settings"]
        changed = [name for name in ("backbone", *MEANING) if found.get(name) != facts.get(name)]
        if changed:
            message = f"the features in {self.folder} were computed with other {changed[0]}"
            if changed[0] == "backbone":
                message = f"the features in {self.folder} are of {found.get('backbone')}, and not"
            else:
                message += " than those"
            hint = "give the model file as NAME, or --weights, with which they were computed"
            raise UsageError(f"{message} of {facts['backbone']}", hint)

    def engine(self, given: str) -> str:
        """Return the engine that computed the features.

        Args:
            given: `auto`, or the name of an engine.

        Raises:
            UsageError: another one is given.
        """
        computed = str((self.about["settings"].get("engine") or [TORCH])[0])
        if given not in (AUTO, computed):
            message = f"--engine {given}, but {computed} computed the features in {self.folder}"
            raise UsageError(message, "omit it")
        return computed


class _Counts:
    """Counts rows by split and class."""

    def __init__(self) -> None:
        self.by_name: dict[str, Counter[str]] = {name: Counter() for name in SPLITS}
        self.unlabelled = 0
        self.held_out = False

    def add(
        self, metadata: Mapping[str, Any], labels: Tensor | None, seed: int, fraction: float
    ) -> None:
        """Count the rows of a file."""
        self.held_out |= not _has_splits(metadata)
        if labels is None:
            self.unlabelled += len(metadata["paths"])
            return
        classes = metadata["classes"]
        for split, label in zip(row_splits(metadata, seed, fraction), labels.tolist(), strict=True):
            if label == UNLABELLED:
                self.unlabelled += 1
            else:
                self.by_name[split][classes[label]] += 1

    def fraction(self, given: float) -> float:
        """Return the share that was held out of files without splits; 0 if all have splits."""
        return given if self.held_out else 0.0

    def splits(self, classes: Sequence[str]) -> dict[str, FeatureSplit]:
        """Return the splits that have rows."""
        return {
            name: FeatureSplit(name, tuple(counts[each] for each in classes))
            for name, counts in self.by_name.items()
            if counts
        }


def row_splits(metadata: Mapping[str, Any], seed: int, fraction: float) -> list[str]:
    """Return the split of each row of a file.

    Rows without one are held out by a hash of the seed and their own path alone, so that a file is
    split without those beside it.
    """
    if _has_splits(metadata):
        return [split if split in SPLITS else "train" for split in metadata["splits"]]
    least = int(fraction * 2**64)
    return ["val" if _hash(f"{seed}\0{path}") < least else "train" for path in metadata["paths"]]


def _has_splits(metadata: Mapping[str, Any]) -> bool:
    return any(split in SPLITS for split in metadata["splits"])


def _hash(text: str) -> int:
    digest = hashlib.sha256(text.encode(errors="backslashreplace")).digest()
    return int.from_bytes(digest[:8], "big")


def find_files(folder: Path) -> tuple[Path, ...]:
    """Return the files of features in a folder, or the file itself.

    Raises:
        DataError: there are none.
    """
    found = (
        [folder]
        if folder.is_file() and folder.suffix == SUFFIX
        else sorted(folder.glob(f"[!.]*{SUFFIX}"))
    )
    if not found:
        hint = f"`zoo embed NAME --data 'shards-*.tar' --out DIR` writes them, as {SUFFIX}"
        raise DataError(f"{folder} has no files of features", hint)
    return tuple(found)


def _shared(metadata: Mapping[str, Any]) -> dict[str, Any]:
    return {name: metadata[name] for name in metadata.keys() - {"paths", "splits", "classes"}}


def read_metadata(file: Path) -> dict[str, Any]:
    """Return the metadata of a file of features.

    Raises:
        WeightsError: it is damaged, or no file of features.
    """
    mapped = map_tensors(file)
    try:
        metadata = parse_json(mapped.metadata["zoo"])
        _check_metadata(metadata, mapped.tensors)
    except (KeyError, ValueError, RecursionError) as error:
        message = f"{file} has no features of `zoo embed`"
        raise WeightsError(message, "compute them with this version of zoo") from error
    return dict(metadata)


def _check_metadata(metadata: Any, tensors: Mapping[str, Tensor]) -> None:
    """Check that metadata are those of a file's tensors.

    Raises:
        KeyError: something is missing.
        ValueError: something is of another type or size.
    """
    features, labels = tensors["features"], tensors.get("labels")
    kinds = {"settings": dict, "preprocess": dict, "backbone": str, "head": str}
    kinds |= dict.fromkeys(("paths", "splits", "classes"), list)
    if not isinstance(metadata, dict) or features.ndim != 2 or not features.is_floating_point():
        raise ValueError
    if not all(isinstance(metadata[name], kind) for name, kind in kinds.items()):
        raise ValueError
    classes = metadata["classes"]
    if {len(metadata["paths"]), len(metadata["splits"])} != {len(features)}:
        raise ValueError
    if not all(isinstance(name, str) for name in classes) or len(set(classes)) < len(classes):
        raise ValueError
    if labels is not None and len(labels):
        if labels.dtype != torch.int64 or labels.shape != features.shape[:1]:
            raise ValueError
        if int(labels.min()) < UNLABELLED or int(labels.max()) >= len(classes):
            raise ValueError


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return the settings of features that differ, each with both values."""
    changed: list[str] = []
    for name in ("backbone", "head"):
        if found.get(name) != wanted[name]:
            return [f"{name} {found.get(name)}, now {wanted[name]}"]  # decides the others
    one, other = found["settings"], wanted["settings"]
    for name in sorted({*one, *other} - {"backbone", "heads"}):
        if one.get(name) != other.get(name):
            changed += _changes(name, one.get(name), other.get(name))
    return changed


def _changes(name: str, one: Any, other: Any) -> list[str]:
    """Return what differs between two values of a setting, of mappings by key."""
    if isinstance(one, dict) and isinstance(other, dict):
        keys = sorted(key for key in {*one, *other} if one.get(key) != other.get(key))
        return [text for key in keys for text in _changes(key, one.get(key), other.get(key))]
    return [f"{name} {str(one)[:40]}, now {str(other)[:40]}"]
