"""Render sections as one HTML page that needs no network."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from zoo import __version__
from zoo.reporting.charts import draw
from zoo.sections import LineChart, Part, Section

if TYPE_CHECKING:
    import jinja2


@cache
def _environment() -> jinja2.Environment:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("zoo.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["pieces"] = pieces
    environment.filters["printable"] = printable
    environment.filters["unbroken"] = unbroken
    return environment


def printable(text: Any) -> str:
    """Return text without characters that reorder or hide it, or that no page can contain."""
    from zoo.terminal import printable as escaped

    return escaped(str(text))


def unbroken(text: str) -> str:
    """Return text whose numbers are on one line with their percent sign."""
    return text.replace(" %", "\N{NO-BREAK SPACE}%")


def pieces(text: str) -> list[tuple[bool, str]]:
    """Return the parts of a text, and whether each stood between backticks."""
    return [(number % 2 == 1, part) for number, part in enumerate(text.split("`")) if part]


def with_unique_anchors(sections: Iterable[Section]) -> list[Section]:
    """Return sections in the order of their places, each with an anchor of its own."""
    seen: dict[str, int] = {}
    unique = []
    for section in sorted(sections, key=lambda each: each.place):
        seen[section.anchor] = count = seen.get(section.anchor, 0) + 1
        anchor = section.anchor if count == 1 else f"{section.anchor}-{count}x"
        unique.append(replace(section, anchor=anchor))
    return unique


def grouped(parts: Sequence[Part]) -> list[list[Part]]:
    """Return parts in groups: consecutive charts are one, and shown side by side."""
    groups: list[list[Part]] = []
    for part in parts:
        if groups and isinstance(part, LineChart) and isinstance(groups[-1][-1], LineChart):
            groups[-1].append(part)
        else:
            groups.append([part])
    return groups


def render(title: str, summary: Sequence[str], sections: Iterable[Section]) -> bytes:
    """Return a page.

    Args:
        title: of the page.
        summary: lines below the title.
        sections: in any order.
    """
    ordered = with_unique_anchors(sections)
    content = [(section, grouped(section.parts)) for section in ordered]
    template = _environment().get_template("page.html")
    page = template.render(
        title=title,
        summary=summary,
        sections=content,
        kind=lambda part: type(part).__name__,
        draw=draw,
        version=__version__,
    )
    page = re.sub(r"\n\s*\n+", "\n", page)
    return f"{page.strip()}\n".encode(errors="backslashreplace")
