"""Features on the disk: what a frozen network made of each picture, found again by content.

A shelf holds the features of one network, prepared and computed in one way. It is a folder of
pairs of files that are written once and never changed: `NAME.rows`, a record for each picture, and
`NAME.index`, the digest of each picture in the same order. A pair is there when its index is, and
that is renamed into place last, so what a killed process leaves is never read. Two trainings that
run at once write pairs of their own. Records are memory-mapped; in memory is the index alone.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.cache import DIGEST, INDEX, PART, ROWS, STORE_FILE, features_dir, locked, read_store
from zoo.errors import EnvironmentProblem
from zoo.files import environment_problem, make_dir, write_bytes

# Written as they are; numpy has no bfloat16, and only carries its bits.
DTYPES: dict[torch.dtype, str] = {
    torch.float32: "<f4",
    torch.float16: "<f2",
    torch.bfloat16: "<u2",
    torch.float64: "<f8",
}
LEAST_ROWS = 2048


@dataclass(frozen=True)
class Column:
    """What a record holds of one head.

    Args:
        path: of the head.
        dtype: of its features, as torch names it.
        shape: of one picture's features.
    """

    path: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def width(self) -> int:
        """How many numbers that are."""
        return math.prod(self.shape)

    @property
    def torch_dtype(self) -> torch.dtype:
        """The dtype itself."""
        found: torch.dtype = getattr(torch, self.dtype)
        return found


def columns_of(features: Mapping[str, Tensor]) -> tuple[Column, ...]:
    """Describe the records of a batch of features, `[images, ...]` by head path."""
    return tuple(
        Column(path, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape[1:]))
        for path, tensor in features.items()
    )


def _record(columns: Sequence[Column]) -> np.dtype[Any]:
    """Return the layout of a record."""
    return np.dtype(
        [(f"f{n}", DTYPES[each.torch_dtype], each.shape) for n, each in enumerate(columns)]
    )


class FeatureStore:
    """Features of one network, by the digest of each picture.

    Used as a context, in which it is read and written; what was added is kept when it ends,
    whichever way it ends.

    Args:
        name: a digest of all that decides what the features are, pictures apart; None for a shelf
            in memory, of which nothing is left.
        about: what a person wants to know of it.
        read_only: read the description alone, write nothing, and contain no features.
    """

    def __init__(
        self, name: str | None, about: Mapping[str, Any] | None = None, read_only: bool = False
    ) -> None:
        self.path = features_dir() / name if name else None
        self.read_only = read_only
        self.about = dict(about or {})
        self.columns: tuple[Column, ...] = ()
        self.checks: dict[str, str | None] = {}
        self.parts: list[NDArray[Any]] = []
        self.starts: list[int] = [0]
        self.damaged: list[str] = []
        self.problem: str | None = None
        self._digests: list[NDArray[np.uint8]] = []
        self._order: NDArray[np.int64] | None = None
        self._sorted: NDArray[np.uint64] | None = None
        self._writer: _Writer | None = None
        self._stack = contextlib.ExitStack()

    def __len__(self) -> int:
        return self.starts[-1]

    @property
    def row_bytes(self) -> int:
        """How many bytes a picture takes."""
        return _record(self.columns).itemsize + DIGEST if self.columns else 0

    def __enter__(self) -> FeatureStore:
        if self.path is not None and self.read_only:
            self._read_description(self.path)
        elif self.path is not None:
            try:
                self._clean(self.path)
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
        """Keep what comes from now on in memory."""
        self.problem = reason
        self.path = None

    def _clean(self, path: Path) -> None:
        """Remove what killed processes left behind, if nobody is writing."""
        with locked(path, exclusive=True) as free:
            for left in [*path.glob(f"*{PART}")] if free else []:
                left.unlink(missing_ok=True)

    def _read_description(self, path: Path) -> None:
        stored = read_store(path)
        self.checks = dict(stored.get("proofs", {}))
        self.columns = tuple(
            Column(each["path"], each["dtype"], tuple(each["shape"]))
            for each in stored.get("columns", ())
        )

    def _open(self, path: Path) -> None:
        self._read_description(path)
        with contextlib.suppress(OSError):
            os.utime(path / STORE_FILE)  # so that it counts as used
        for index in sorted(path.glob(f"*{INDEX}")) if self.columns else []:
            rows: NDArray[Any]
            try:
                digests = np.fromfile(index, dtype=np.uint8).reshape(-1, DIGEST)
                rows = np.memmap(index.with_suffix(ROWS), _record(self.columns), mode="r")
                if len(rows) != len(digests):
                    raise ValueError
            except (OSError, ValueError):
                self.damaged.append(index.stem)
            else:
                self._take(rows, digests)

    def _take(self, rows: NDArray[Any], digests: NDArray[np.uint8]) -> None:
        self.parts.append(rows)
        self._digests.append(digests)
        self.starts.append(self.starts[-1] + len(rows))
        self._order = None

    def find(self, digests: Sequence[bytes]) -> NDArray[np.int64]:
        """Return the row of each picture; -1 where it is not there."""
        self.flush()
        if not len(self) or not digests:
            return np.full(len(digests), -1, dtype=np.int64)
        if self._order is None:
            firsts = np.concatenate([each[:, :8] for each in self._digests])
            keys = np.ascontiguousarray(firsts).view(np.uint64).ravel()
            self._order = np.argsort(keys, kind="stable")
            self._sorted = keys[self._order]
        wanted = np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, DIGEST)
        keys = np.ascontiguousarray(wanted[:, :8]).view(np.uint64).ravel()
        assert self._sorted is not None
        places = np.minimum(np.searchsorted(self._sorted, keys), len(self._sorted) - 1)
        rows = self._order[places]
        same = self._sorted[places] == keys
        # Eight bytes find it, all of them decide.
        for part, start, stop in self._spans():
            inside = np.flatnonzero(same & (rows >= start) & (rows < stop))
            held = self._digests[part][rows[inside] - start]
            same[inside] = (held == wanted[inside]).all(axis=1)
        return np.where(same, rows, -1)

    def _spans(self) -> list[tuple[int, int, int]]:
        pairs = zip(self.starts, self.starts[1:], strict=False)
        return [(part, start, stop) for part, (start, stop) in enumerate(pairs)]

    def add(self, digests: Sequence[bytes], features: Mapping[str, Tensor]) -> NDArray[np.int64]:
        """Keep the features of some pictures, and return their rows.

        Args:
            digests: sha256 of each picture's content.
            features: by head path, `[images, ...]`, on the CPU.
        """
        if not self.columns:
            self.columns = columns_of(features)
            self._describe()
        assert columns_of(features) == self.columns
        records = np.empty(len(digests), dtype=_record(self.columns))
        for number, column in enumerate(self.columns):
            tensor = features[column.path].contiguous()
            raw = tensor.view(torch.uint8).numpy() if tensor.ndim > 1 else tensor.numpy()
            records[f"f{number}"] = raw.view(DTYPES[tensor.dtype]).reshape(
                len(digests), *column.shape
            )
        if self._writer is None:
            self._writer = _Writer(self.path, max(LEAST_ROWS, len(self) // 8))
        first = len(self) + len(self._writer)
        try:
            self._writer.write(records, b"".join(digests))
        except EnvironmentProblem as error:
            self.spill_to_memory(str(error))
        if self._writer.full:
            self.flush()
        return np.arange(first, first + len(digests))

    def flush(self) -> None:
        """Make what was added last, and is not yet whole, a part of the shelf."""
        writer, self._writer = self._writer, None
        if writer is not None and len(writer):
            record = _record(self.columns)
            try:
                rows = writer.commit(record)
            except EnvironmentProblem as error:
                self.spill_to_memory(str(error))
                rows = writer.commit(record)
            self._take(rows, writer.digests())

    def gather(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """Return features of some rows, by head path, in that order."""
        self.flush()
        found = np.empty(len(rows), dtype=_record(self.columns))
        for part, start, stop in self._spans():
            inside = np.flatnonzero((rows >= start) & (rows < stop))
            if len(inside):
                found[inside] = self.parts[part][rows[inside] - start]
        return {
            column.path: torch.from_numpy(np.ascontiguousarray(found[f"f{number}"]).view(np.uint8))
            .view(column.torch_dtype)
            .reshape(len(rows), *column.shape)
            for number, column in enumerate(self.columns)
        }

    def record_check(self, what: str, reason: str | None) -> None:
        """Note that something was tried of the network, and why it does not hold, if it doesn't."""
        self.checks[what] = reason
        self._describe()

    def _describe(self) -> None:
        if self.path is None or self.read_only:
            return
        columns = [
            {"path": each.path, "dtype": each.dtype, "shape": list(each.shape)}
            for each in self.columns
        ]
        said = {**self.about, "columns": columns, "proofs": self.checks}
        try:
            write_bytes(self.path / STORE_FILE, json.dumps(said, indent=2).encode())
        except EnvironmentProblem as error:
            self.spill_to_memory(str(error))


class _Writer:
    """A pair of files in the making; where there is no folder, or no room in it, in memory.

    Args:
        folder: of the shelf.
        most: records after which the pair is full.
    """

    def __init__(self, folder: Path | None, most: int) -> None:
        self.place = folder / uuid.uuid4().hex if folder else None
        self.most = most
        self.count = 0
        self.records: list[NDArray[Any]] = []
        self.keys: list[bytes] = []
        self.file: FileIO | None = None

    def __len__(self) -> int:
        return self.count

    @property
    def full(self) -> bool:
        """Whether it should be committed."""
        return self.count >= self.most

    def _staged(self, suffix: str) -> Path:
        assert self.place is not None
        return self.place.with_suffix(suffix + PART)

    def write(self, records: NDArray[Any], keys: bytes) -> None:
        """Add records.

        Raises:
            EnvironmentProblem: the system refuses; they are kept in memory then, with all before.
        """
        self.keys.append(keys)
        self.count += len(records)
        if self.place is None:
            self.records.append(records)
            return
        try:
            if self.file is None:
                self.file = self._staged(ROWS).open("wb", buffering=0)
            raw = records.tobytes()
            if self.file.write(raw) < len(raw):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        except OSError as error:
            self.records.append(records)
            raise self._retreat(error, records.dtype) from error

    def _retreat(self, error: OSError, dtype: np.dtype[Any]) -> EnvironmentProblem:
        """Take into memory what is on the disk already."""
        assert self.place is not None
        problem = environment_problem(error, self.place.with_suffix(ROWS))
        wanted = self.count - sum(len(each) for each in self.records)
        if self.file is not None:
            with contextlib.suppress(OSError):
                self.file.close()
            held = np.fromfile(self._staged(ROWS), dtype=dtype, count=wanted)
            if len(held) < wanted:
                raise problem from error
            self.records.insert(0, held)
        for suffix in (ROWS, INDEX):
            with contextlib.suppress(OSError):
                self._staged(suffix).unlink(missing_ok=True)
        self.place, self.file = None, None
        return problem

    def commit(self, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Make the pair of files whole, and return its records.

        Raises:
            EnvironmentProblem: the system refuses; the records are in memory then.
        """
        if self.place is None:
            return np.concatenate(self.records)
        try:
            assert self.file is not None
            with self.file:
                os.fsync(self.file.fileno())
            self._staged(ROWS).rename(self.place.with_suffix(ROWS))
            with self._staged(INDEX).open("wb") as file:
                file.write(b"".join(self.keys))
                file.flush()
                os.fsync(file.fileno())
            self._staged(INDEX).rename(self.place.with_suffix(INDEX))
            return np.memmap(self.place.with_suffix(ROWS), dtype, mode="r")
        except OSError as error:
            whole = self.place.with_suffix(ROWS)
            if whole.exists():
                whole.rename(self._staged(ROWS))
            raise self._retreat(error, dtype) from error

    def digests(self) -> NDArray[np.uint8]:
        """Return the digests of the records, `[records, 32]`."""
        return np.frombuffer(b"".join(self.keys), dtype=np.uint8).reshape(-1, DIGEST)
