"""Compute and cache the features of all images of a source, and write them to a file."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from zoo.cache import trim
from zoo.data.all_images import AllImages
from zoo.data.bad_images import describe_bad, describe_incomplete, no_readable_image
from zoo.data.shards import names_shards, shards_in
from zoo.data.value_range import measure_ranges
from zoo.engine.backends.choice import AUTO
from zoo.engine.features.cache import FeatureCache, FeatureSet, feature_batch
from zoo.engine.features.engines import choose_engine, confirm_engine
from zoo.engine.features.fingerprint import network_fingerprint
from zoo.engine.features.store import FeatureStore
from zoo.engine.runtime.reader import ImageReader
from zoo.errors import UsageError, WeightsError
from zoo.files import write_bytes, writing
from zoo.inference.embed_shards import embed_shards
from zoo.inference.encoded import main_head
from zoo.inference.feature_file import describe_features, write_rows
from zoo.inference.loading import load_features
from zoo.inference.predictor import Predictor
from zoo.models.freeze import freeze
from zoo.options.arguments import check_arguments
from zoo.options.columns import Columns
from zoo.options.option import raise_together
from zoo.options.part import Part
from zoo.registry.registry import Registry
from zoo.tensorfile import map_tensors
from zoo.terminal import Progress

FORMATS = (".safetensors", ".npy")
ROWS_PER_BLOCK = 4096


@dataclass(frozen=True)
class Embedded:
    """Features of the images of a source, open for reading.

    Args:
        features: of each split.
        path: of the main head, whose input they are.
        images: of the source.
        bad: reasons by path, of unreadable images.
        forwards: number of forward passes of the backbone, in images.
        engine: that computed them.
    """

    features: tuple[FeatureSet, ...]
    path: str
    images: AllImages
    bad: dict[str, str]
    forwards: int
    engine: str

    def __len__(self) -> int:
        return sum(map(len, self.features))

    @property
    def width(self) -> int:
        """Number of features per image."""
        return next(c.width for c in self.features[0].store.columns if c.path == self.path)

    def rows(self) -> Iterator[Tensor]:
        """Yield blocks of features, `[rows, width]` float32 on the CPU."""
        for features in self.features:
            for first in range(0, len(features), ROWS_PER_BLOCK):
                rows = slice(first, first + ROWS_PER_BLOCK)
                yield features.column(self.path, rows).float().cpu()

    def labels(self) -> Tensor:
        """Return the label of each row, `[rows]` int64 on the CPU."""
        return torch.cat([features.targets.cpu() for features in self.features])

    def groups(self) -> Tensor | None:
        """Return the group of each row as an integer, `[rows]`; None without groups."""
        pairs = list(zip(self.images.splits, self.features, strict=True))
        names = sorted({group for split, _ in pairs for group in split.groups})
        if not names:
            return None
        number = {name: index for index, name in enumerate(names)}
        return torch.cat(
            [
                torch.tensor([number[group] for group in split.groups])[features.row >= 0]
                for split, features in pairs
            ]
        )

    def paths(self) -> list[str]:
        """Return the path of each row's image."""
        return [
            # Escape the bytes of paths that are not valid text.
            split.where(index).encode(errors="backslashreplace").decode()
            for split, features in zip(self.images.splits, self.features, strict=True)
            for index in torch.nonzero(features.row >= 0).flatten().tolist()
        ]


@contextmanager
def embedding(
    model: Predictor,
    images: AllImages,
    progress: Progress,
    limit: int,
    *,
    workers: int | None = None,
    bad_images: str = "error",
    engine: str = AUTO,
) -> Iterator[Embedded]:
    """Open the features of all images, after computing those that are not cached.

    Args:
        model: a trained one, or a pretrained backbone; its network is frozen.
        images: of the source.
        progress: display of progress and notices.
        limit: of all cached features, in bytes.
        workers: number of decoding processes; None to choose it.
        bad_images: `error` or `skip`.
        engine: `auto`, or the name of one.

    Raises:
        DataError: images cannot be read and `bad_images` is `error`; names all of them.
        UsageError: the network does not have exactly one main head.
    """
    network = model.network
    head = main_head(model)
    freeze(network.module)
    if model.card is None:
        # As a training on these images would, so that it finds the features.
        ranges = measure_ranges(images.splits)
        network.preprocess = replace(network.preprocess, ranges=ranges)
    batch = feature_batch(network.device)
    transform = network.task.transform(network.preprocess)
    reader = ImageReader(transform, network.device, batch, workers, bad_images)
    filled = [split for split in images.splits if len(split)]
    choice = choose_engine(network, engine, batch, sum(map(len, filled)))
    with ExitStack() as stack:
        while True:
            name, about = network_fingerprint(network, batch, choice.name)
            store = stack.enter_context(FeatureStore(name, about))
            cache = FeatureCache(network, reader, store, progress.wrap, engine=choice.name)
            confirmed = confirm_engine(choice, cache, filled[0]) if filled else choice
            if confirmed.name == choice.name:
                break
            choice = confirmed
            stack.close()  # the store of the engine that was refused
        if store.problem:
            progress.notice(f"features are cached for this run only: {store.problem}")
        rows = cache.rows([(split, (None,)) for split in images.splits])
        for line in describe_incomplete(sorted(reader.incomplete), images.root):
            progress.notice(f"{images.name}: {line}")
        features = tuple(map(cache.feature_set, images.splits, rows))
        yield Embedded(features, head, images, reader.bad, network.forwards, choice.name)
        path = store.path
    if path is not None:
        trim(limit, keep=path)


def embed(
    name: str | Path,
    data: Any,
    out: Path,
    registry: Registry,
    progress: Progress,
    *,
    classes: int | None = None,
    columns: Columns | None = None,
    workers: int | None = None,
    bad_images: str = "error",
    device: str = "auto",
    part: Part | None = None,
    engine: str = AUTO,
) -> dict[str, Any]:
    """Write the features of all images of a source, and return a summary.

    Args:
        name: of a backbone, or path of a model file or run folder.
        data: the source, as for a training, or a folder of images; or shards.
        out: path; its suffix selects the format, as in `write_features`. Of shards a folder.
        registry: of backbones.
        progress: display of progress and notices.
        classes: number of classes, to choose between two readings of folders.
        columns: of a table.
        workers: number of decoding processes; None to choose it.
        bad_images: `error` or `skip`.
        device: as torch names it, or `auto`.
        part: of the shards to compute; None for all.
        engine: of features, `auto` or the name of one.

    Returns:
        `path`, `images`, `width`, `backbone_forwards`, `engine`, and `bad_images`: reasons by path;
        of shards more, as `embed_shards`.

    Raises:
        UsageError: the suffix is unknown, an option does not apply to the source, or the network
            does not have exactly one main head.
        DataError: the data cannot be used.
        WeightsError: the model cannot be loaded.
    """
    reading: dict[str, Any] = {"workers": workers, "bad_images": bad_images, "device": device}
    check_arguments(data=data)
    if names_shards(data):
        refuse_given("shards have no such", columns=columns, classes=classes)
        reading["engine"] = engine
        return embed_shards(name, data, out, registry, progress, part=part, **reading)
    if isinstance(data, (list, tuple)) and any(map(names_shards, data)):
        raise UsageError("several shards are given by a pattern", "such as 'shards-*.tar'")
    refuse_given("parts are those of shards, such as 'shards-*.tar'", part=part)
    if (pattern := shards_in(data)) and not out.suffix:
        raise UsageError(f"{data} is a folder of shards", f"give them as --data {pattern}")
    check_format(out)
    model = load_features(name, registry, device)
    images = model.network.task.open_all(data, classes=classes, columns=columns)
    for notice in images.notices:
        progress.notice(f"{images.name}: {notice}")
    limit = int(registry.config.defaults["cache_gib"] * (1 << 30))
    with embedding(
        model, images, progress, limit, workers=workers, bad_images=bad_images, engine=engine
    ) as embedded:
        summary = write_features(embedded, model, out)
    for line in describe_bad(embedded.bad):
        progress.notice(f"skipped: {line}")
    return {
        "path": str(out),
        **summary,
        "engine": embedded.engine,
        "bad_images": embedded.bad,
    }


def refuse_given(reason: str, **options: Any) -> None:
    """Refuse options that do not apply to a source.

    Raises:
        UsageError: some are given; names them.
    """
    raise_together(
        [
            UsageError(f"--{name} {value} does not apply to this data: {reason}", "omit it")
            for name, value in options.items()
            if value is not None
        ]
    )


def check_format(out: Path) -> None:
    """Check an output file.

    Raises:
        UsageError: its suffix is not a known format, or it is a file of other tensors, such as a
            model.
    """
    if out.suffix not in FORMATS:
        hint = f"write {out.with_suffix(FORMATS[0]).name} or {out.with_suffix(FORMATS[1]).name}"
        raise UsageError(f"the suffix of {out.name} is not a known format", hint)
    beside, hint = out.with_suffix(".json"), "give another file, or remove it"
    if out.suffix == ".safetensors" and out.is_file() and not _has_features(out):
        raise UsageError(f"--out {out} is no file of features, and would be replaced", hint)
    if out.suffix == ".npy" and beside.is_file() and not out.exists():
        raise UsageError(f"--out {out}: {beside} beside it would be replaced", hint)


def _has_features(path: Path) -> bool:
    try:
        return "features" in map_tensors(path).tensors
    except WeightsError:
        return False


def write_features(embedded: Embedded, model: Predictor, out: Path) -> dict[str, Any]:
    """Write features with the paths and classes of their images, and return a summary.

    A `.safetensors` contains `features` `[images, width]` float32, `labels` `[images]` int64, and
    in its metadata the key `zoo`: canonical JSON of `backbone`, `preprocess`, `precision`, `head`,
    `settings`, `classes`, and of each image `paths` and `splits`. A `.npy` contains only the
    features, and a `.json` beside it the rest.

    Args:
        embedded: features, open for reading.
        model: that computed them.
        out: path; its suffix selects the format.

    Raises:
        DataError: no image can be read.
        EnvironmentProblem: the file cannot be written; an existing one is unchanged.
    """
    images = embedded.images
    if not len(embedded):
        raise no_readable_image(images.name)
    labels = embedded.labels().numpy() if images.classes else None
    metadata = {
        **describe_features(
            model, embedded.path, feature_batch(model.network.device), embedded.engine
        ),
        "classes": list(images.classes),
        "paths": embedded.paths(),
        "splits": [
            split.name
            for split, features in zip(images.splits, embedded.features, strict=True)
            for _ in range(len(features))
        ],
    }
    shape = (len(embedded), embedded.width)
    with writing(out) as file:
        if out.suffix == ".npy":
            header = {"descr": "<f4", "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            for rows in embedded.rows():
                file.write(rows.numpy().astype("<f4").tobytes())
        else:
            write_rows(file, shape, embedded.rows(), labels, metadata)
    if out.suffix == ".npy":
        content = metadata | ({"labels": labels.tolist()} if labels is not None else {})
        text = json.dumps(content, indent=2, ensure_ascii=False)
        write_bytes(out.with_suffix(".json"), text.encode(errors="backslashreplace"))
    return {"images": shape[0], "width": shape[1], "backbone_forwards": embedded.forwards}
