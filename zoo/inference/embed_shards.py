"""Compute the features of shards, each into a file of its own, without a coordinator.

A job takes its part of the shards by a fixed rule, skips those whose file exists, and writes each
file whole or not at all. So jobs can be killed, repeated, and run twice at once.
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from zoo.data.bad_images import UnreadableImages, describe_bad, describe_incomplete
from zoo.data.names import sort_classes
from zoo.data.shards import Sample, Shard, find_shards, name_of
from zoo.engine.backends.choice import AUTO, TORCH
from zoo.engine.features.files import SUFFIX, UNLABELLED, differences
from zoo.engine.runtime.device import environment_errors
from zoo.errors import DataError, UsageError, counted, listed
from zoo.files import make_dir, writing
from zoo.inference.encoded import EncodedExtractor
from zoo.inference.feature_file import describe_features, write_rows
from zoo.inference.loading import load_features
from zoo.inference.shard_engine import choose_for_shards, confirm_on_shards, encoded_of, read_done
from zoo.options.option import raise_together
from zoo.options.part import Part
from zoo.registry.registry import Registry
from zoo.terminal import Progress

# Batches that are computed in one go, and bytes of their files: an engine that computes on several
# batches at once is not busy at the end.
CHUNK_BATCHES, CHUNK_BYTES = 32, 256 << 20


@dataclass
class JobResult:
    """What a job has done.

    Attributes:
        shards: number of shards by status: `done`, `skipped`, `failed`.
        failed: reasons by path of a shard.
        images: number of rows written.
        width: number of features; 0 if no file was written or read.
        forwards: number of forward passes of the backbone, in images.
        engine: that computes the features.
        bad: reasons by shard and key, of images that cannot be read.
        others: number of members that are neither image nor label, by extension.
        labels: number of labels by extension.
        unlabelled: number of images without a label.
    """

    shards: Counter[str] = field(default_factory=lambda: Counter(done=0, skipped=0, failed=0))
    failed: dict[str, str] = field(default_factory=dict)
    images: int = 0
    width: int = 0
    forwards: int = 0
    engine: str = TORCH
    bad: dict[str, str] = field(default_factory=dict)
    others: Counter[str] = field(default_factory=Counter)
    labels: Counter[str] = field(default_factory=Counter)
    unlabelled: int = 0

    def summary(self, out: Path) -> dict[str, Any]:
        """Return it as plain data for JSON."""
        return {
            "path": str(out),
            "images": self.images,
            "width": self.width,
            "backbone_forwards": self.forwards,
            "engine": self.engine,
            "bad_images": self.bad,
            "shards": dict(self.shards),
            "failed": self.failed,
            "labels": dict(sorted(self.labels.items())),
            "unlabelled": self.unlabelled,
            "other_members": dict(sorted(self.others.items())),
        }


def embed_shards(
    name: str | Path,
    data: str | Path,
    out: Path,
    registry: Registry,
    progress: Progress,
    *,
    part: Part | None = None,
    workers: int | None = None,
    bad_images: str = "error",
    device: str = "auto",
    engine: str = AUTO,
) -> dict[str, Any]:
    """Write the features of shards to a folder, one file a shard, and return a summary.

    A shard that fails is reported in the summary, and the others go on.

    Args:
        name: of a backbone, or path of a model file or run folder.
        data: path or pattern of tar files.
        out: the folder.
        registry: of backbones.
        progress: display of progress and notices.
        part: of the shards to compute; None for all.
        workers: number of decoding processes; None to choose it.
        bad_images: `error` fails a shard with an unreadable image, `skip` omits the image.
        device: as torch names it, or `auto`.
        engine: `auto`, see `choose_for_shards`, or the name of one.

    Raises:
        UsageError: a file in the folder was computed with other settings.
        DataError: no shard matches.
        WeightsError: the model cannot be loaded.
        EnvironmentProblem: a file cannot be written.
    """
    check_folder(out)
    shards = find_shards(data)
    chosen = shards if part is None else part.of(shards)
    if not chosen:
        progress.notice(f"part {part} of {counted(len(shards), 'shard')} has none")
    model = load_features(name, registry, device)
    done = [target for shard in shards if (target := target_of(shard, out)).exists()]
    choice = choose_for_shards(model.network, engine, shards, done)
    extractor = EncodedExtractor(model, workers=workers, choice=choice)
    if not {target_of(shard, out) for shard in chosen} <= set(done):
        confirm_on_shards(extractor, shards)
    about = describe_features(model, extractor.path, extractor.batch, extractor.choice.name)
    check_done([target_of(shard, out) for shard in chosen], about)
    for line in describe_newer(chosen, out):
        progress.notice(line)
    make_dir(out)
    job = _Job(extractor, about, out, progress, bad_images, JobResult())
    for shard in progress.wrap(chosen, len(chosen), "shards"):
        job.run(shard)
    job.result.forwards = model.network.forwards
    job.result.engine = extractor.choice.name
    job.report()
    return job.result.summary(out)


def raise_failed(summary: Mapping[str, Any]) -> None:
    """Raise an error that names the shards that failed, if any.

    Raises:
        DataError: lists the first, with the reasons.
    """
    failed: Mapping[str, str] = summary["failed"]
    if not failed:
        return
    total = sum(summary["shards"].values())
    reasons = "; ".join(itertools.islice(failed.values(), 5))
    more = f"; and {len(failed) - 5:,} more" if len(failed) > 5 else ""
    message = f"{len(failed):,} of {counted(total, 'shard')} failed: {reasons}{more}"
    raise DataError(message, "the others are done; repair these, and run the command again")


def check_folder(out: Path) -> None:
    """Check that the output can be a folder.

    Raises:
        UsageError: it is a file, or named like one.
    """
    if out.is_file() or out.suffix in (SUFFIX, ".npy"):
        hint = f"give a folder, such as {out.with_suffix('')}"
        raise UsageError(f"shards are written to a folder, and {out} is a file", hint)


def target_of(shard: Path, out: Path) -> Path:
    """Return the file of a shard's features."""
    return out / f"{name_of(shard)}{SUFFIX}"


def check_done(files: Sequence[Path], about: Mapping[str, Any]) -> None:
    """Check that files which exist were computed with the same network and settings.

    Raises:
        UsageError: one was not; names the differences of the first such.
        WeightsError: one is damaged, or no file of features.
    """
    faults = []
    for file in files:
        if file.exists() and (changed := differences(read_done(file), about)):
            message = f"{file} was computed with other settings: {', '.join(changed)}"
            faults.append(UsageError(message, "give another --out, or remove it"))
    raise_together(faults[:5])


def describe_newer(shards: Sequence[Path], out: Path) -> Iterator[str]:
    """Yield a line where shards changed after their features were computed, by the files' times."""
    newer = []
    for shard in shards:
        with contextlib.suppress(OSError):
            if shard.stat().st_mtime > target_of(shard, out).stat().st_mtime:
                newer.append(str(shard))
    if newer:
        skipped = f"{counted(len(newer), 'shard')} newer than the file of features, and skipped"
        yield f"{skipped}: {listed(newer)}; to compute them again, remove their files from {out}"


@dataclass
class _Job:
    """Computes shards one after the other.

    Args:
        extractor: of the features.
        about: metadata of each file.
        out: the folder.
        progress: display of notices.
        bad_images: `error` or `skip`.
        result: what was done so far.
    """

    extractor: EncodedExtractor
    about: dict[str, Any]
    out: Path
    progress: Progress
    bad_images: str
    result: JobResult

    def run(self, path: Path) -> None:
        """Compute a shard, unless its file exists."""
        target, result = target_of(path, self.out), self.result
        # Another job may have written it since.
        if target.exists():
            result.shards["skipped"] += 1
            return
        shard = Shard(path)
        try:
            rows = self._read(shard)
        except DataError as error:
            result.failed[str(path)] = error.message
            result.shards["failed"] += 1
            self.progress.notice(f"failed: {error.message}")
        else:
            self._write(target, rows)
            result.shards["done"] += 1
        result.others += shard.others
        result.labels += shard.labels

    def _read(self, shard: Shard) -> _Rows:
        """Return the rows of a shard.

        Raises:
            DataError: it is damaged, has no image, or one that cannot be read.
        """
        rows = _Rows()
        bad: dict[str, str] = {}
        for chunk in _chunks(shard.samples(), self.extractor.batch):
            images = encoded_of(shard.path, chunk)
            with environment_errors(f"computing features of {shard.path}"):
                extracted = self.extractor(images)
            bad |= extracted.bad
            for line in describe_incomplete(extracted.incomplete, shard.path):
                self.progress.notice(f"{shard.path}: {line}")
            rows.add(chunk, extracted.features, extracted.readable)
        self.result.bad |= bad
        if bad and self.bad_images == "error":
            raise UnreadableImages(bad)
        if not rows.keys:
            reason = "no image can be read" if bad else "it has no images"
            raise DataError(f"{shard.path}: {reason}")
        return rows

    def _write(self, target: Path, rows: _Rows) -> None:
        width = rows.blocks[0].shape[1]
        labels, classes = rows.labels()
        metadata = {
            **self.about,
            "classes": classes,
            "paths": rows.keys,
            "splits": ["all"] * len(rows.keys),
        }
        with writing(target) as file:
            write_rows(file, (len(rows.keys), width), rows.blocks, labels, metadata)
        self.result.images += len(rows.keys)
        self.result.width = width
        self.result.unlabelled += rows.names.count(None)

    def report(self) -> None:
        """Show what the shards contain beside images."""
        result = self.result
        for line in describe_bad(result.bad, 3) if self.bad_images == "skip" else ():
            self.progress.notice(f"skipped: {line}")
        if result.others:
            counts = ", ".join(f"{count:,} {name}" for name, count in result.others.most_common(10))
            self.progress.notice(f"members that are not read: {counts}")
        if result.labels:
            counts = ", ".join(f"{count:,} from {name}" for name, count in result.labels.items())
            self.progress.notice(f"labels: {counts}")
        if result.unlabelled and result.labels:
            self.progress.notice(f"{counted(result.unlabelled, 'image')} without a label")


class _Rows:
    """The readable images of a shard.

    Attributes:
        blocks: features, `[rows, width]`.
        keys: of each row.
        names: of each row's class; None without a label.
    """

    def __init__(self) -> None:
        self.blocks: list[Tensor] = []
        self.keys: list[str] = []
        self.names: list[str | None] = []

    def add(self, samples: Sequence[Sample], features: Tensor, read: NDArray[np.bool_]) -> None:
        """Add the readable ones of some samples."""
        kept = list(itertools.compress(samples, read))
        if kept:
            self.blocks.append(features)
            # Escape the bytes of keys that are not valid text.
            self.keys += [s.key.encode(errors="backslashreplace").decode() for s in kept]
            self.names += [sample.label for sample in kept]

    def labels(self) -> tuple[NDArray[np.int64] | None, list[str]]:
        """Return the label of each row, -1 without one, and the classes; None without any."""
        classes = sort_classes({name for name in self.names if name is not None})
        if not classes:
            return None, []
        number = {name: index for index, name in enumerate(classes)}
        labels = [UNLABELLED if name is None else number[name] for name in self.names]
        return np.array(labels, dtype=np.int64), classes


def _chunks(samples: Iterator[Sample], batch: int) -> Iterator[list[Sample]]:
    """Yield samples in whole batches, as many as are decoded at once."""
    chunk: list[Sample] = []
    size = 0
    for sample in samples:
        chunk.append(sample)
        size += len(sample.image)
        whole = len(chunk) % batch == 0
        if whole and (len(chunk) == batch * CHUNK_BATCHES or size >= CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk
