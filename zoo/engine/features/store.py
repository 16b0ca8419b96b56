"""Store of a frozen network's features on disk, addressed by the digest of each image.

A store contains the features of one network fingerprint. It is a folder of immutable segments, each
a pair of files: `NAME.rows`, a record per image, and `NAME.index`, the digests in the same order.
The index is written last, so segments that a killed process did not complete are never read.
Concurrent trainings write separate segments. Records are memory-mapped; only the index is in
memory.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.cache import DIGEST, INDEX, PART, ROWS, STORE_FILE, features_dir, locked, read_store
from zoo.errors import EnvironmentProblem
from zoo.files import AtomicFile, environment_problem, make_dir, write_bytes

# Stored without conversion; numpy has no bfloat16, so its bits are stored as integers.
DTYPES: dict[torch.dtype, str] = {
    torch.float32: "<f4",
    torch.float16: "<f2",
    torch.bfloat16: "<u2",
    torch.float64: "<f8",
}
MIN_SEGMENT_ROWS = 2048


@dataclass(frozen=True)
class Column:
    """Column of a record: the features of one head.

    Args:
        path: of the head.
        dtype: torch's name of the dtype.
        shape: of one image's features.
    """

    path: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def width(self) -> int:
        """Number of values per image."""
        return math.prod(self.shape)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype as torch's object."""
        dtype: torch.dtype = getattr(torch, self.dtype)
        return dtype


def columns_of(features: Mapping[str, Tensor]) -> tuple[Column, ...]:
    """Return the columns of a batch of features, `[images, ...]` by head path."""
    return tuple(
        Column(path, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape[1:]))
        for path, tensor in features.items()
    )


def _record_dtype(columns: Sequence[Column]) -> np.dtype[Any]:
    """Return the structured dtype of a record."""
    return np.dtype(
        [(f"f{n}", DTYPES[each.torch_dtype], each.shape) for n, each in enumerate(columns)]
    )


class FeatureStore:
    """Features of one network, by the digest of each image.

    A context manager; added features are written when it exits, also by an exception.

    Args:
        name: fingerprint of the network's features; None for a temporary store in memory.
        description: of the network, for listings of the cache.
        read_only: read the header alone, write nothing, and contain no features.

    Attributes:
        columns: of a record; empty until features are added.
        checks: reason by check of the network that failed, None where it passed.
        segments: memory-mapped records.
        damaged: names of unreadable segments.
        problem: why the store spilled to memory; None on disk.
    """

    def __init__(
        self,
        name: str | None,
        description: Mapping[str, Any] | None = None,
        read_only: bool = False,
    ) -> None:
        self.path = features_dir() / name if name else None
        self.read_only = read_only
        self.description = dict(description or {})
        self.columns: tuple[Column, ...] = ()
        self.checks: dict[str, str | None] = {}
        self.segments: list[NDArray[Any]] = []
        self._offsets: list[int] = [0]
        self.damaged: list[str] = []
        self.problem: str | None = None
        self._digests: list[NDArray[np.uint8]] = []
        self._order: NDArray[np.int64] | None = None
        self._sorted_keys: NDArray[np.uint64] | None = None
        self._writer: _SegmentWriter | None = None
        self._stack = contextlib.ExitStack()

    def __len__(self) -> int:
        return self._offsets[-1]

    @property
    def row_bytes(self) -> int:
        """Size of an image's record and digest in bytes."""
        return _record_dtype(self.columns).itemsize + DIGEST if self.columns else 0

    def __enter__(self) -> FeatureStore:
        if self.path is not None and self.read_only:
            self._read_header(self.path)
        elif self.path is not None:
            try:
                self._remove_incomplete(self.path)
                self._stack.enter_context(locked(self.path))
                self._open(make_dir(self.path))
            except EnvironmentProblem as error:
                self._stack.close()
                self.spill_to_memory(str(error))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.flush()
        finally:
            self._stack.close()

    def spill_to_memory(self, reason: str) -> None:
        """Store further features in memory."""
        self.problem = reason
        self.path = None

    def _remove_incomplete(self, path: Path) -> None:
        """Remove incomplete segments of killed processes, unless another process is writing."""
        with locked(path, exclusive=True) as free:
            if not free:
                return
            for rows in path.glob(f"*{ROWS}"):
                if not rows.with_suffix(INDEX).exists():
                    rows.unlink(missing_ok=True)
            for file in path.glob(f"*{PART}"):
                file.unlink(missing_ok=True)

    def _read_header(self, path: Path) -> None:
        header = read_store(path)
        self.checks = dict(header.get("proofs", {}))
        self.columns = tuple(
            Column(column["path"], column["dtype"], tuple(column["shape"]))
            for column in header.get("columns", ())
        )

    def _open(self, path: Path) -> None:
        self._read_header(path)
        with contextlib.suppress(OSError):
            os.utime(path / STORE_FILE)  # time of last use, for the cache limit
        for index in sorted(path.glob(f"*{INDEX}")) if self.columns else []:
            rows: NDArray[Any]
            try:
                digests = np.fromfile(index, dtype=np.uint8).reshape(-1, DIGEST)
                rows = np.memmap(index.with_suffix(ROWS), _record_dtype(self.columns), mode="r")
                if len(rows) != len(digests):
                    raise ValueError
            except (OSError, ValueError):
                self.damaged.append(index.stem)
            else:
                self._append_segment(rows, digests)

    def _append_segment(self, rows: NDArray[Any], digests: NDArray[np.uint8]) -> None:
        self.segments.append(rows)
        self._digests.append(digests)
        self._offsets.append(self._offsets[-1] + len(rows))
        self._order = None

    def find(self, digests: Sequence[bytes]) -> NDArray[np.int64]:
        """Return the row of each image; -1 where it is not stored."""
        self.flush()
        if not len(self) or not digests:
            return np.full(len(digests), -1, dtype=np.int64)
        if self._order is None:
            prefixes = np.concatenate([digests[:, :8] for digests in self._digests])
            keys = np.ascontiguousarray(prefixes).view(np.uint64).ravel()
            self._order = np.argsort(keys, kind="stable")
            self._sorted_keys = keys[self._order]
        wanted = np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, DIGEST)
        keys = np.ascontiguousarray(wanted[:, :8]).view(np.uint64).ravel()
        assert self._sorted_keys is not None
        index = np.minimum(np.searchsorted(self._sorted_keys, keys), len(self._sorted_keys) - 1)
        rows = self._order[index]
        same = self._sorted_keys[index] == keys
        # The search compares prefixes of eight bytes; compare whole digests.
        for segment, start, stop in self._spans():
            inside = np.flatnonzero(same & (rows >= start) & (rows < stop))
            stored = self._digests[segment][rows[inside] - start]
            same[inside] = (stored == wanted[inside]).all(axis=1)
        return np.where(same, rows, -1)

    def _spans(self) -> list[tuple[int, int, int]]:
        pairs = zip(self._offsets, self._offsets[1:], strict=False)
        return [(segment, start, stop) for segment, (start, stop) in enumerate(pairs)]

    def add(self, digests: Sequence[bytes], features: Mapping[str, Tensor]) -> NDArray[np.int64]:
        """Add the features of images, and return their rows.

        Args:
            digests: sha256 of each image's content.
            features: by head path, `[images, ...]`, on the CPU.
        """
        if not self.columns:
            self.columns = columns_of(features)
            self._write_header()
        assert columns_of(features) == self.columns
        records = np.empty(len(digests), dtype=_record_dtype(self.columns))
        for number, column in enumerate(self.columns):
            tensor = features[column.path].contiguous()
            raw = tensor.view(torch.uint8).numpy() if tensor.ndim > 1 else tensor.numpy()
            records[f"f{number}"] = raw.view(DTYPES[tensor.dtype]).reshape(
                len(digests), *column.shape
            )
        if self._writer is None:
            self._writer = _SegmentWriter(self.path, max(MIN_SEGMENT_ROWS, len(self) // 8))
        first = len(self) + len(self._writer)
        try:
            self._writer.write(records, b"".join(digests))
        except EnvironmentProblem as error:
            self.spill_to_memory(str(error))
        if self._writer.full:
            self.flush()
        return np.arange(first, first + len(digests))

    def flush(self) -> None:
        """Commit added features as a segment."""
        writer, self._writer = self._writer, None
        if writer is not None and len(writer):
            dtype = _record_dtype(self.columns)
            try:
                rows = writer.commit(dtype)
            except EnvironmentProblem as error:
                self.spill_to_memory(str(error))
                rows = writer.commit(dtype)
            self._append_segment(rows, writer.digests())

    def gather(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """Return features of some rows in their order, `[rows, ...]` by head path."""
        self.flush()
        records = np.empty(len(rows), dtype=_record_dtype(self.columns))
        for segment, start, stop in self._spans():
            inside = np.flatnonzero((rows >= start) & (rows < stop))
            if len(inside):
                records[inside] = self.segments[segment][rows[inside] - start]
        return {
            column.path: torch.from_numpy(
                np.ascontiguousarray(records[f"f{number}"]).view(np.uint8)
            )
            .view(column.torch_dtype)
            .reshape(len(rows), *column.shape)
            for number, column in enumerate(self.columns)
        }

    def record_check(self, name: str, reason: str | None) -> None:
        """Record the result of a check of the network: why it failed, None where it passed."""
        self.checks[name] = reason
        self._write_header()

    def _write_header(self) -> None:
        if self.path is None or self.read_only:
            return
        columns = [
            {"path": column.path, "dtype": column.dtype, "shape": list(column.shape)}
            for column in self.columns
        ]
        header = {**self.description, "columns": columns, "proofs": self.checks}
        try:
            write_bytes(self.path / STORE_FILE, json.dumps(header, indent=2).encode())
        except EnvironmentProblem as error:
            self.spill_to_memory(str(error))


class _SegmentWriter:
    """Writes a segment, to disk or, without a folder or enough space in it, to memory.

    Args:
        folder: of the store; None for memory.
        capacity: number of records of a full segment.
    """

    def __init__(self, folder: Path | None, capacity: int) -> None:
        self.stem = folder / uuid.uuid4().hex if folder else None
        self.capacity = capacity
        self.count = 0
        self.records: list[NDArray[Any]] = []
        self.keys: list[bytes] = []
        self.file: AtomicFile | None = None

    def __len__(self) -> int:
        return self.count

    @property
    def full(self) -> bool:
        """Whether it should be committed."""
        return self.count >= self.capacity

    def write(self, records: NDArray[Any], keys: bytes) -> None:
        """Add records.

        Raises:
            EnvironmentProblem: the disk cannot be written; all records are in memory then.
        """
        self.keys.append(keys)
        self.count += len(records)
        if self.stem is None:
            self.records.append(records)
            return
        try:
            if self.file is None:
                self.file = AtomicFile(self.stem.with_suffix(ROWS))
            self.file.write(records.tobytes())
        except OSError as error:
            self.records.append(records)
            raise self._move_to_memory(error, records.dtype) from error

    def _move_to_memory(self, error: OSError, dtype: np.dtype[Any]) -> EnvironmentProblem:
        """Read records back from the disk after an error, and return it as an environment error."""
        assert self.stem is not None
        rows = self.stem.with_suffix(ROWS)
        problem = environment_problem(error, rows)
        written = self.count - sum(map(len, self.records))
        if self.file is not None:
            with self.file as file:
                path = file.temporary if file.temporary.exists() else rows
                stored = np.fromfile(path, dtype=dtype, count=written)
            with contextlib.suppress(OSError):
                rows.unlink(missing_ok=True)
            if len(stored) < written:
                raise problem from error
            self.records.insert(0, stored)
        self.stem, self.file = None, None
        return problem

    def commit(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Complete the segment, and return its records.

        Raises:
            EnvironmentProblem: the disk cannot be written; all records are in memory then.
        """
        if self.stem is None:
            return np.concatenate(self.records)
        try:
            assert self.file is not None
            self.file.commit()
            with AtomicFile(self.stem.with_suffix(INDEX)) as index:
                index.write(b"".join(self.keys))
                index.commit()
            return np.memmap(self.stem.with_suffix(ROWS), dtype, mode="r")
        except OSError as error:
            raise self._move_to_memory(error, dtype) from error

    def digests(self) -> NDArray[np.uint8]:
        """Return the digests of the records, `[records, 32]`."""
        return np.frombuffer(b"".join(self.keys), dtype=np.uint8).reshape(-1, DIGEST)
