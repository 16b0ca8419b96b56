"""The source of a prediction, and the table of an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zoo.spec import Preprocess


@dataclass(frozen=True)
class Table:
    """A table for the terminal.

    Args:
        header: names of the columns.
        rows: cells as text.
        right: names of the right-aligned columns.
        optional: names of columns that are left out where the table is too large for a terminal.
        ranks: of each row; where not all fit, those of the lowest are printed.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    ranks: tuple[float, ...] = ()


@dataclass(frozen=True)
class SourceImage:
    """The source of a prediction.

    Args:
        name: path as given, or `image`.
        size: width and height in pixels, after EXIF rotation.
        preprocess: of the network's input.
        open: decodes it at full size, as a PIL image of mode RGB.
    """

    name: str
    size: tuple[int, int]
    preprocess: Preprocess
    open: Callable[[], Any]
