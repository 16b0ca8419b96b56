"""The range of values that a data set uses, of images whose type could have more.

Cameras and scanners write 10, 12 or 14 bits into files of 16, and floats declare no range at all.
Scaled by the range of their type, such images are nearly black. The range is that of the data set,
measured once before training and stored with the network, so that every image is scaled alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zoo.data.split import Split
from zoo.data.values import FULL, Ranges

# Largest values of the usual depths, of 1 to 16 bits, and of floats.
DEPTHS = (1, 3, 7, 15, 31, 255, 1023, 4095, 16383, 65535)
FIRST = 8
# A range is a sliver of a depth below this share of it.
SLIVER = 1 / 8


@dataclass
class Extent:
    """Smallest and largest value of the images of a type so far.

    Args:
        kind: `uint8`, `uint16`, `int32` or `float32`.
        low: smallest value.
        high: largest value.
    """

    kind: str
    low: float = np.inf
    high: float = -np.inf

    def add(self, values: NDArray[Any]) -> None:
        """Add the values of an image; those that are not finite are ignored."""
        if values.dtype.kind == "f":
            values = values[np.isfinite(values)]
        if values.size:
            self.low = min(self.low, float(values.min()))
            self.high = max(self.high, float(values.max()))

    @property
    def complete(self) -> bool:
        """Whether no further image can change the range: it is that of the type."""
        return self.kind in FULL and self.range() == (0.0, float(FULL[self.kind]))

    def range(self) -> tuple[float, float] | None:
        """Return the values that become black and white; None where all are equal.

        It is 0 to the largest value of the smallest depth that contains all values. Where they are
        a sliver of that, or negative, or exceed 16 bits, it is the smallest to the largest value.
        """
        if self.low >= self.high:
            return None
        fitting = [limit for limit in DEPTHS if self.low >= 0 and self.high <= limit]
        if not fitting or self.high - self.low < SLIVER * fitting[0]:
            return self.low, self.high
        return 0.0, float(fitting[0])


def measure_ranges(splits: Iterable[Split]) -> Ranges:
    """Return the ranges of values in the images of a data set.

    Images of a type are read until they use its whole range, which the first few do in almost all
    data sets. Files of types that use it are not opened.

    Returns:
        Type, and the values that become black and white, of each type whose range is not its own.
    """
    extents: dict[str, Extent] = {}
    complete: set[str] = set()
    for split in splits:
        for index in range(len(split)):
            # Reading an item of a Dataset may be slow; they are of one type.
            if split.draws and index >= FIRST and complete >= extents.keys():
                break
            values = split.values(index, complete)
            if values is None:
                continue
            extent = extents.setdefault(values.kind, Extent(values.kind))
            extent.add(values.array)
            if extent.complete:
                complete.add(values.kind)
    ranges = {kind: extents[kind].range() for kind in sorted(extents.keys() - complete)}
    return tuple((kind, *limits) for kind, limits in ranges.items() if limits is not None)


def describe_ranges(ranges: Ranges) -> str:
    """Return ranges for people: `uint16 0 to 4095`."""
    return ", ".join(f"{kind} {low:g} to {high:g}" for kind, low, high in ranges)
