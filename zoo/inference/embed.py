"""Features of all images of a source, computed once, written as they are read."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from zoo.cache import trim
from zoo.data.all_images import AllImages
from zoo.engine.features.cache import FeatureCache, FeatureSet, feature_batch
from zoo.engine.features.fingerprint import network_fingerprint
from zoo.engine.features.store import FeatureStore
from zoo.engine.runtime.reader import ImageReader
from zoo.errors import DataError, UsageError
from zoo.files import canonical_json, write_bytes, writing
from zoo.inference.predictor import Predictor
from zoo.models.freeze import freeze
from zoo.records import to_dict
from zoo.terminal import Progress

FORMATS = (".safetensors", ".npy")
ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Embedded:
    """Features of the images of a source, open for reading.

    Args:
        features: of each split.
        path: of the main head whose features they are.
        every: the source.
        bad: why, by path, for images that cannot be read.
        forwards: images that went through the backbone.
    """

    features: tuple[FeatureSet, ...]
    path: str
    every: AllImages
    bad: dict[str, str]
    forwards: int

    def __len__(self) -> int:
        return sum(map(len, self.features))

    @property
    def width(self) -> int:
        """How many numbers an image's features are."""
        return next(c.width for c in self.features[0].store.columns if c.path == self.path)

    def rows(self) -> Iterator[Tensor]:
        """Yield the features, `[rows, width]` float32 on the CPU, some rows at a time."""
        for features in self.features:
            for first in range(0, len(features), ROWS_AT_ONCE):
                rows = slice(first, first + ROWS_AT_ONCE)
                yield features.column(self.path, rows).float().cpu()

    def labels(self) -> Tensor:
        """Return the label of each row, `[rows]` int64 on the CPU."""
        return torch.cat([features.targets.cpu() for features in self.features])

    def paths(self) -> list[str]:
        """Return where each row's image lies."""
        return [
            # A path that is not valid text is shown with its bytes escaped.
            split.where(index).encode(errors="backslashreplace").decode()
            for split, features in zip(self.every.splits, self.features, strict=True)
            for index in torch.nonzero(features.row >= 0).flatten().tolist()
        ]


@contextmanager
def embedding(
    model: Predictor,
    every: AllImages,
    progress: Progress,
    limit: int,
    *,
    workers: int = 0,
    bad_images: str = "error",
) -> Iterator[Embedded]:
    """Open the features of all images, computing those that are not cached.

    Args:
        model: a trained one, or a backbone as it was published; its network is frozen.
        every: the images.
        progress: shows how it goes.
        limit: bytes that cached features may take beside these.
        workers: processes that decode.
        bad_images: `error` or `skip`.

    Raises:
        DataError: an image cannot be read, and that is not to be skipped.
        UsageError: the network has no head to read features at.
    """
    network = model.network
    main = [p for p, head in zip(network.paths, network.heads, strict=True) if head.role == "main"]
    if len(main) != 1:
        what = "no head" if not main else f"{len(main)} heads"
        raise UsageError(f"{model.backbone} has {what} to read features at", "choose another")
    freeze(network.module)
    batch = feature_batch(network.device)
    name, about = network_fingerprint(network, batch)
    transform = network.task.transform(network.preprocess)
    reader = ImageReader(transform, network.device, batch, workers, bad_images)
    with FeatureStore(name, about) as store:
        if store.problem:
            progress.notice(f"features are kept for this run only: {store.problem}")
        cache = FeatureCache(network, reader, store, progress.wrap)
        features = tuple(each for split in every.splits if (each := cache.compute(split)))
        yield Embedded(features, main[0], every, reader.bad, network.forwards)
        path = store.path
    if path is not None:
        trim(limit, keep=path)


def check_format(out: Path) -> None:
    """Refuse a file that its name gives no known format.

    Raises:
        UsageError: names those that there are.
    """
    if out.suffix not in FORMATS:
        hint = f"write {out.with_suffix(FORMATS[0]).name} or {out.with_suffix(FORMATS[1]).name}"
        raise UsageError(f"features cannot be written as {out.name}", hint)


def write_features(embedded: Embedded, model: Predictor, out: Path) -> dict[str, Any]:
    """Write features with the paths and classes of their images, and return what was written.

    A `.safetensors` holds `features` `[images, width]` float32 and `labels` `[images]` int64, and
    in its metadata the key `zoo`: canonical JSON of `backbone`, `preprocess`, `precision`, `head`,
    `classes`, and of each image `paths` and `splits`. A `.npy` holds the features alone; the rest
    stands in a `.json` beside it.

    Args:
        embedded: open.
        model: that they are of.
        out: whose suffix says which.

    Raises:
        DataError: not one image can be read.
        EnvironmentProblem: the system refuses; what was there stays.
    """
    if not len(embedded):
        raise DataError(f"no image of {embedded.every.name} can be read")
    labels = embedded.labels().numpy() if embedded.every.classes else None
    about = {
        "backbone": model.backbone,
        "preprocess": to_dict(model.preprocess),
        "precision": model.network.precision,
        "head": embedded.path,
        "classes": list(embedded.every.classes),
        "paths": embedded.paths(),
        "splits": [
            split.name
            for split, features in zip(embedded.every.splits, embedded.features, strict=True)
            for _ in range(len(features))
        ],
    }
    shape = (len(embedded), embedded.width)
    with writing(out) as file:
        if out.suffix == ".npy":
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
        else:
            _write_header(file, shape, labels, about)
        for rows in embedded.rows():
            file.write(rows.numpy().astype("<f4").tobytes())
        if labels is not None and out.suffix != ".npy":
            file.write(labels.astype("<i8").tobytes())
    if out.suffix == ".npy":
        beside = about | ({"labels": labels.tolist()} if labels is not None else {})
        text = json.dumps(beside, indent=2, ensure_ascii=False)
        write_bytes(out.with_suffix(".json"), text.encode(errors="backslashreplace"))
    return {"images": shape[0], "width": shape[1], "backbone_forwards": embedded.forwards}


def _write_header(
    file: BinaryIO, shape: tuple[int, int], labels: Any, about: dict[str, Any]
) -> None:
    """Write what comes before the values in a safetensors file."""
    size = shape[0] * shape[1] * 4
    header: dict[str, Any] = {"__metadata__": {"zoo": canonical_json(about)}}
    header["features"] = {"dtype": "F32", "shape": list(shape), "data_offsets": [0, size]}
    if labels is not None:
        end = size + 8 * shape[0]
        header["labels"] = {"dtype": "I64", "shape": [shape[0]], "data_offsets": [size, end]}
    text = json.dumps(header, ensure_ascii=True).encode()
    text += b" " * (-len(text) % 8)
    file.write(struct.pack("<Q", len(text)) + text)
