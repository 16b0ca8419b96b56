"""Standardized features, in memory if they are small, else read in chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from zoo.errors import DataError

# Size up to which a standardized copy is in memory.
CACHE_BYTES = 512 << 20
# Size of a chunk: of its features, and of the logits computed from them.
CHUNK_BYTES = 32 << 20
# A standard deviation this small relative to the mean is rounding of float32: a constant feature.
CONSTANT = 1e-6
# The inverse of a smaller value overflows in float32.
TINY = 1e-37


class RowMatrix(Protocol):
    """A tensor, an array or a memory-mapped array: a matrix with rows that can be sliced."""

    @property
    def shape(self) -> Sequence[int]:
        """`[rows, width]`."""

    def __getitem__(self, rows: Any) -> Any:
        """Return the rows of a slice or an index array, as a tensor or an array."""


class StandardizedFeatures:
    """Features with mean 0 and standard deviation 1, as a sequence of chunks.

    One pass computes mean and deviation, in float64. A second pass caches a standardized float32
    copy if it is small enough; otherwise each pass reads the matrix again, and memory does not grow
    with the number of rows.

    A copy with far fewer rows than columns is projected on the span of its rows. This preserves
    inner products, and with them the optimum under an L2 penalty, at a fraction of the cost.

    Args:
        matrix: `[rows, width]`, of any floating type.
        rows: sorted indices of the rows to use; None for all.
        device: of the chunks.

    Raises:
        DataError: a feature is not finite.
    """

    def __init__(self, matrix: RowMatrix, rows: Tensor | None, device: torch.device) -> None:
        self.matrix, self.rows, self.device = matrix, rows, device
        self.count = len(rows) if rows is not None else int(matrix.shape[0])
        self.width = int(matrix.shape[1])
        # MPS has no float64.
        self.exact = torch.float32 if device.type == "mps" else torch.float64
        self.basis: Tensor | None = None
        self._cached: dict[torch.dtype, Tensor] = {}
        self.mean, self.inverse = self._measure()
        if self.count * self.width * 4 <= CACHE_BYTES:
            self._cache_in_memory()

    @property
    def columns(self) -> int:
        """Number of columns of a chunk."""
        return self.width if self.basis is None else self.basis.shape[1]

    def chunks(self, dtype: torch.dtype, logits: int) -> Iterator[tuple[slice, Tensor]]:
        """Yield chunks of standardized rows in order, each with its slice of the rows.

        Args:
            dtype: of the chunks.
            logits: number of values that the caller computes per row; limits the chunk size.
        """
        size = torch.finfo(dtype).bits // 8
        step = max(CHUNK_BYTES // (size * max(self.columns, 2 * logits)), 16)
        if torch.float32 in self._cached and dtype not in self._cached:
            cached = self._cached[torch.float32]
            if cached.numel() * size <= CACHE_BYTES:
                self._cached[dtype] = cached.to(dtype)
        whole = self._cached.get(dtype, self._cached.get(torch.float32))
        for start in range(0, self.count, step):
            span = slice(start, min(start + step, self.count))
            yield span, self._standardize(span, dtype) if whole is None else whole[span].to(dtype)

    def fold_back(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Convert weights and bias for chunks to those for raw features, `[classes, width]`."""
        if self.basis is not None:
            weight = weight @ self.basis.T
        weight = weight.cpu().double() * self.inverse.cpu().double()
        return weight, bias.cpu().double() - weight @ self.mean.cpu().double()

    def _raw(self, span: slice) -> Tensor:
        """Return raw features of a span of rows, in float32 on the device."""
        index: Any = span
        if self.rows is not None:
            rows = self.rows[span]
            first, last = int(rows[0]), int(rows[-1])
            # A slice of a tensor is a view, and one of a file is a sequential read.
            index = slice(first, last + 1) if last - first + 1 == len(rows) else rows
        if isinstance(self.matrix, Tensor):
            if isinstance(index, Tensor):
                index = index.to(self.matrix.device)
            return self.matrix[index].to(self.device, torch.float32)
        values = self.matrix[index if isinstance(index, slice) else index.numpy()]
        tensor = values if isinstance(values, Tensor) else torch.tensor(values)
        return tensor.to(self.device, torch.float32)

    def _standardize(self, span: slice, dtype: torch.dtype) -> Tensor:
        raw = self._raw(span).to(dtype)
        return (raw - self.mean.to(dtype)).mul_(self.inverse.to(dtype))

    def _measure(self) -> tuple[Tensor, Tensor]:
        """Return mean and inverse standard deviation of the columns; 0 for constant columns."""
        step = max(CHUNK_BYTES // (8 * self.width), 16)
        done, mean, square = 0, torch.zeros(()), torch.zeros(())
        for start in range(0, self.count, step):
            chunk = self._raw(slice(start, min(start + step, self.count))).to(self.exact)
            variance, chunk_mean = torch.var_mean(chunk, dim=0, correction=0)
            if not start:
                mean, square = chunk_mean, variance * len(chunk)
            else:
                # Chan's update: raw sums of squares lose all precision beside a large mean.
                total = done + len(chunk)
                delta = chunk_mean - mean
                square = square + variance * len(chunk) + delta**2 * (done * len(chunk) / total)
                mean = mean + delta * (len(chunk) / total)
            done += len(chunk)
        deviation = (square / max(done, 1)).sqrt()
        if not bool(torch.isfinite(deviation).all() and torch.isfinite(mean).all()):
            column = int((~torch.isfinite(deviation + mean)).nonzero()[0])
            hint = "infinities or NaN among them; try --precision fp32"
            raise DataError(f"feature {column} of the images is not finite", hint)
        constant = (deviation <= CONSTANT * mean.abs()) | (deviation <= TINY)
        inverse = torch.where(constant, torch.zeros_like(deviation), 1 / deviation)
        # Rounded here, so that `_standardize` and `fold_back` use the same values.
        return mean.float(), inverse.float()

    def _cache_in_memory(self) -> None:
        cached = torch.empty(self.count, self.width, device=self.device)
        step = max(CHUNK_BYTES // (4 * self.width), 16)
        for start in range(0, self.count, step):
            span = slice(start, min(start + step, self.count))
            cached[span] = self._standardize(span, torch.float32)
        self._cached[torch.float32] = cached
        if 2 * self.count <= self.width and self.device.type != "mps":
            self.basis, coordinates = torch.linalg.qr(cached.T.double())
            self._cached[torch.float64] = coordinates.T.contiguous()
            self._cached[torch.float32] = self._cached[torch.float64].float()
