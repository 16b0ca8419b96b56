"""Features standardised: held where they are small, read in chunks where they are not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from zoo.errors import DataError

# Up to this much a standardised copy is kept in memory; beyond it, one chunk at a time.
HELD_BYTES = 512 << 20
# What one chunk may take: of the features, and of the logits made from them.
CHUNK_BYTES = 32 << 20
# A deviation this small beside the mean is float32's rounding, and no weight can use it.
CONSTANT = 1e-6
# Below it, float32 cannot hold the inverse.
TINY = 1e-37


class Matrix(Protocol):
    """A tensor, an array, a memory-mapped array: anything of rows that can be sliced."""

    @property
    def shape(self) -> Sequence[int]:
        """`[rows, width]`."""

    def __getitem__(self, rows: Any) -> Any:
        """Return some rows, of a slice or of an index array, as a tensor or an array."""


class Standard:
    """Features with mean 0 and deviation 1, as a sequence of chunks.

    One pass finds mean and deviation, in float64. Where the matrix is small enough, a second one
    keeps a standardised float32 copy; else each pass reads the matrix anew, and memory does not
    grow with the number of rows.

    A copy of far fewer rows than columns is turned into the space of its rows. Distances and
    inner products stay, so what an L2 penalty makes of it does too, at a fraction of the work.

    Args:
        matrix: `[rows, width]`, of any floating type.
        rows: which rows count, sorted; None for all.
        device: where chunks go.

    Raises:
        DataError: a feature is not finite.
    """

    def __init__(self, matrix: Matrix, rows: Tensor | None, device: torch.device) -> None:
        self.matrix, self.rows, self.device = matrix, rows, device
        self.count = len(rows) if rows is not None else int(matrix.shape[0])
        self.width = int(matrix.shape[1])
        # MPS has no float64.
        self.exact = torch.float32 if device.type == "mps" else torch.float64
        self.basis: Tensor | None = None
        self._held: dict[torch.dtype, Tensor] = {}
        self.mean, self.inverse = self._measure()
        if self.count * self.width * 4 <= HELD_BYTES:
            self._hold()

    @property
    def columns(self) -> int:
        """How many columns a chunk has."""
        return self.width if self.basis is None else self.basis.shape[1]

    def chunks(self, dtype: torch.dtype, logits: int) -> Iterator[tuple[slice, Tensor]]:
        """Yield the standardised rows in order, each chunk with its place among them.

        Args:
            dtype: of the chunks.
            logits: how many values the caller makes of each row.
        """
        size = torch.finfo(dtype).bits // 8
        step = max(CHUNK_BYTES // (size * max(self.columns, 2 * logits)), 16)
        if torch.float32 in self._held and dtype not in self._held:
            held = self._held[torch.float32]
            if held.numel() * size <= HELD_BYTES:
                self._held[dtype] = held.to(dtype)
        whole = self._held.get(dtype, self._held.get(torch.float32))
        for start in range(0, self.count, step):
            place = slice(start, min(start + step, self.count))
            yield place, self._scaled(place, dtype) if whole is None else whole[place].to(dtype)

    def fold_back(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Return weights `[classes, width]` and bias for raw features, from those for chunks."""
        if self.basis is not None:
            weight = weight @ self.basis.T
        weight = weight.cpu().double() * self.inverse.cpu().double()
        return weight, bias.cpu().double() - weight @ self.mean.cpu().double()

    def _raw(self, place: slice) -> Tensor:
        """Return rows as they are, in float32 on the device."""
        wanted: Any = place
        if self.rows is not None:
            some = self.rows[place]
            first, last = int(some[0]), int(some[-1])
            # A slice of a tensor is a view, and of a file it is read in one piece.
            wanted = slice(first, last + 1) if last - first + 1 == len(some) else some
        if isinstance(self.matrix, Tensor):
            if isinstance(wanted, Tensor):
                wanted = wanted.to(self.matrix.device)
            return self.matrix[wanted].to(self.device, torch.float32)
        found = self.matrix[wanted if isinstance(wanted, slice) else wanted.numpy()]
        read = found if isinstance(found, Tensor) else torch.tensor(found)
        return read.to(self.device, torch.float32)

    def _scaled(self, place: slice, dtype: torch.dtype) -> Tensor:
        raw = self._raw(place).to(dtype)
        return (raw - self.mean.to(dtype)).mul_(self.inverse.to(dtype))

    def _measure(self) -> tuple[Tensor, Tensor]:
        """Return mean and inverse deviation, 0 for a constant, of the columns."""
        step = max(CHUNK_BYTES // (8 * self.width), 16)
        done, mean, spread = 0, torch.zeros(()), torch.zeros(())
        for start in range(0, self.count, step):
            chunk = self._raw(slice(start, min(start + step, self.count))).to(self.exact)
            variance, here = torch.var_mean(chunk, dim=0, correction=0)
            if not start:
                mean, spread = here, variance * len(chunk)
            else:
                # A sum of squares would drown in a large mean; sums about the means do not.
                total = done + len(chunk)
                apart = here - mean
                spread = spread + variance * len(chunk) + apart**2 * (done * len(chunk) / total)
                mean = mean + apart * (len(chunk) / total)
            done += len(chunk)
        deviation = (spread / max(done, 1)).sqrt()
        if not bool(torch.isfinite(deviation).all() and torch.isfinite(mean).all()):
            column = int((~torch.isfinite(deviation + mean)).nonzero()[0])
            hint = "infinities or NaN among them; try --precision fp32"
            raise DataError(f"feature {column} of the images is not finite", hint)
        constant = (deviation <= CONSTANT * mean.abs()) | (deviation <= TINY)
        inverse = torch.where(constant, torch.zeros_like(deviation), 1 / deviation)
        # Rounded once, so that what is subtracted here is what is folded back.
        return mean.float(), inverse.float()

    def _hold(self) -> None:
        held = torch.empty(self.count, self.width, device=self.device)
        step = max(CHUNK_BYTES // (4 * self.width), 16)
        for start in range(0, self.count, step):
            place = slice(start, min(start + step, self.count))
            held[place] = self._scaled(place, torch.float32)
        self._held[torch.float32] = held
        if 2 * self.count <= self.width and self.device.type != "mps":
            self.basis, corner = torch.linalg.qr(held.T.double())
            self._held[torch.float64] = corner.T.contiguous()
            self._held[torch.float32] = self._held[torch.float64].float()
