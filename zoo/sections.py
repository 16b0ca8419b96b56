"""Sections of the report of a training: text, numbers, tables, charts and images, as data.

A task and plugins describe what is shown; the report draws it. Every text is escaped, so names of
files and classes may contain anything.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, TypeAlias

from zoo.errors import UsageError

# The first bytes of the image formats that every browser shows.
IMAGES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png", b"RIFF": "image/webp"}


@dataclass(frozen=True)
class Text:
    """A paragraph.

    Args:
        text: plain text; words between backticks are shown as code.
        note: whether it is a remark on method or limits, shown smaller.
    """

    text: str
    note: bool = False


@dataclass(frozen=True)
class Number:
    """A number with its name.

    Args:
        label: what it is.
        value: as text, with its unit.
        detail: such as what it compares with.
        interval: that the number is in by the measured samples, as text.
        bounds: value, lower and upper bound of the interval, for the chart that compares runs.
    """

    label: str
    value: str
    detail: str = ""
    interval: str = ""
    bounds: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class Numbers:
    """Numbers that are shown large, side by side."""

    items: tuple[Number, ...]


@dataclass(frozen=True)
class DataTable:
    """A table that readers can sort by any column.

    Args:
        header: names of the columns.
        rows: cells as text.
        right: names of the columns of numbers.
        caption: what it shows.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: tuple[str, ...] = ()
    caption: str = ""


@dataclass(frozen=True)
class Series:
    """A line of a chart.

    Args:
        name: for the legend.
        points: `(x, y)`, in the order of x.
        dashed: whether it is a reference or an extrapolation.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    dashed: bool = False


@dataclass(frozen=True)
class LineChart:
    """Lines over one axis.

    Args:
        title: what it shows; also its text alternative, with the last values.
        x: name of the horizontal axis.
        y: name of the vertical axis.
        series: the lines.
        percent: whether values are fractions, shown as percentages.
        log: whether the horizontal axis is logarithmic.
    """

    title: str
    x: str
    y: str
    series: tuple[Series, ...]
    percent: bool = False
    log: bool = False


@dataclass(frozen=True)
class BarChart:
    """Horizontal bars.

    Args:
        title: what it shows.
        bars: name and values of each, one value per name of `groups`.
        groups: names of the values of a bar.
        percent: whether values are fractions, shown as percentages.
    """

    title: str
    bars: tuple[tuple[str, tuple[float, ...]], ...]
    groups: tuple[str, ...] = ("",)
    percent: bool = False


@dataclass(frozen=True)
class IntervalChart:
    """Values with their intervals, one below the other.

    Args:
        title: what it shows.
        rows: of each its name, value, lower and upper bound.
        percent: whether values are fractions, shown as percentages.
    """

    title: str
    rows: tuple[tuple[str, float, float, float], ...]
    percent: bool = False


@dataclass(frozen=True)
class Reliability:
    """A reliability diagram: accuracy by confidence.

    Args:
        title: what it shows.
        bins: of each its mean confidence, its accuracy and its number of samples.
    """

    title: str
    bins: tuple[tuple[float, float, int], ...]


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix that readers can sort.

    Args:
        names: of the classes.
        counts: true classes as rows, predicted ones as columns.
        caption: what it shows.
    """

    names: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    caption: str = ""


@dataclass(frozen=True)
class SmallImage:
    """An image of a gallery.

    Args:
        data: a JPEG, PNG or WebP file, as small as it can be read.
        alt: what it shows, for those who do not see it.
        lines: of text below it, the first one most prominent.

    Raises:
        UsageError: the data is of another format.
    """

    data: bytes
    alt: str
    lines: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.media_type:
            message = f"the image {self.alt!r:.80} is no JPEG, PNG or WebP file"
            raise UsageError(message, "encode it as one of these")

    @property
    def media_type(self) -> str:
        """Its media type, such as `image/jpeg`; empty for another format."""
        return next((kind for first, kind in IMAGES.items() if self.data.startswith(first)), "")

    @property
    def base64(self) -> str:
        """The file as base64 text."""
        return base64.b64encode(self.data).decode("ascii")


@dataclass(frozen=True)
class Gallery:
    """Small images, side by side.

    Args:
        images: to show.
        caption: what they are.
        small: whether each is shown in the height of a line, such as the colours of a legend.
    """

    images: tuple[SmallImage, ...]
    caption: str = ""
    small: bool = False


@dataclass(frozen=True)
class Code:
    """Lines to copy, such as a command."""

    text: str


Part: TypeAlias = (
    Text
    | Numbers
    | DataTable
    | LineChart
    | BarChart
    | IntervalChart
    | Reliability
    | Confusion
    | Gallery
    | Code
)
_KINDS: dict[str, type] = {
    kind.__name__: kind
    for kind in (
        Text,
        Number,
        Numbers,
        DataTable,
        Series,
        LineChart,
        BarChart,
        IntervalChart,
        Reliability,
        Confusion,
        SmallImage,
        Gallery,
        Code,
    )
}
PARTS = tuple(kind for kind in _KINDS.values() if kind not in (Number, Series, SmallImage))
# Sections of zoo's own have places from 100 to 900.
LAST = 1000.0


@dataclass(frozen=True)
class Section:
    """A section of a report.

    Args:
        title: of the section.
        parts: what it shows, in order.
        place: sections are in the order of their places; those of equal places in that of plugins.
        anchor: last part of its address, unique in a report; by default the title's words.

    Raises:
        UsageError: a part is none of this module's.
    """

    title: str
    parts: tuple[Part, ...]
    place: float = LAST
    anchor: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(self.parts))
        words = re.sub(r"[^a-z0-9]+", "-", (self.anchor or self.title).lower()).strip("-")
        object.__setattr__(self, "anchor", words or "section")
        for part in self.parts:
            if not isinstance(part, PARTS):
                kinds = ", ".join(kind.__name__ for kind in PARTS)
                message = f"section {self.title!r} has a {type(part).__name__}"
                raise UsageError(message, f"give one of {kinds}")

    def to_dict(self) -> dict[str, Any]:
        """Return the section as data for JSON."""
        return {
            "title": self.title,
            "place": self.place,
            "anchor": self.anchor,
            "parts": _plain(self.parts),
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Section:
        """Restore a section from `to_dict`.

        Raises:
            TypeError, ValueError, KeyError, UsageError: it is not a section.
        """
        parts = _restored(plain["parts"])
        return cls(str(plain["title"]), parts, float(plain["place"]), str(plain["anchor"]))


def _plain(value: Any) -> Any:
    if type(value) in _KINDS.values():
        items = {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
        return {"kind": type(value).__name__, **items}
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    return (
        [_plain(each) for each in value]
        if isinstance(value, Sequence) and not isinstance(value, str)
        else value
    )


def _restored(value: Any) -> Any:
    if isinstance(value, Mapping):
        kind = _KINDS[value["kind"]]
        items = {name: _restored(item) for name, item in value.items() if name != "kind"}
        if kind is SmallImage:
            items["data"] = base64.b64decode(items["data"], validate=True)
        return kind(**items)
    return tuple(map(_restored, value)) if isinstance(value, list) else value
