"""Summarise the records of `head_training.py`: medians, extrapolated epochs, ratios."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any

LOWER_BOUNDS = ("decode", "forward", "decode and forward")
OTHERS = ("textbook", "fastai", "transformers")
LONG = 20
# Columns, with the digits of each.
COLUMNS = {"seconds": 1, "startup": 1, "after": 1, "images_per_second": 0, "memory_mb": 0}
COLUMNS |= {"top1": 3, "forwards": 0}

Row = dict[str, Any]


def summary(records: list[Row], images: int, epochs: int | None = None) -> Row:
    """Return the medians of a side's runs.

    Args:
        records: of its runs.
        images: in both splits; an epoch runs all of them through the backbone.
        epochs: number to extrapolate to, at the mean of those that ran; None for no extrapolation.

    Returns:
        Values of `COLUMNS`: `after` is seconds without start-up, `images_per_second` the rate of
        forwards in them. None where no run has a value.
    """
    rows = []
    for record in records:
        ran = record.get("epochs") or [0.0]
        further = (epochs - len(ran)) * sum(ran) / len(ran) if epochs else 0.0
        after = record["seconds"] - (record.get("startup") or 0.0) + further
        forwards = record.get("backbone_forwards", images * (epochs or len(ran)))
        row = {**record, "seconds": record["seconds"] + further, "after": after}
        row |= {"forwards": forwards, "images_per_second": forwards / after if forwards else None}
        # Memory and accuracy cannot be extrapolated.
        rows.append(row | ({"memory_mb": None, "top1": None} if epochs else {}))
    columns = {name: [row[name] for row in rows if row.get(name) is not None] for name in COLUMNS}
    return {name: median(values) if values else None for name, values in columns.items()}


def summaries(sides: Mapping[str, list[Row]], images: int) -> dict[str, Row]:
    """Return a row for each side of a network, and the extrapolated ones of the other libraries."""
    rows = {name: summary(records, images) for name, records in sides.items() if records}
    for name in OTHERS:
        if sides.get(name) and f"{name} {LONG} epochs" not in rows:
            rows[f"{name} {LONG} epochs, extrapolated"] = summary(sides[name], images, LONG)
    return rows


def table(results: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a page: for each network a table, and the ratios with their limits."""
    images = results["data"]["images"]
    for network, sides in results["networks"].items():
        rows = summaries(sides, images)
        yield from ("", f"{network}: {images:,} images, {results['machine']}", "")
        yield f"| side | {' | '.join(COLUMNS)} |"
        yield "|---" * (len(COLUMNS) + 1) + "|"
        for name, row in rows.items():
            cells = [
                "" if row[column] is None else f"{row[column]:,.{digits}f}"
                for column, digits in COLUMNS.items()
            ]
            yield f"| {' | '.join([name, *cells])} |"
        yield ""
        after = {name: row["after"] for name, row in rows.items()}
        if "decode" in after and "forward" in after:
            for name in rows:
                if name.startswith("zoo") and name != "zoo again":
                    ratio = after[name] / (after["decode"] + after["forward"])
                    label = f"{name} / (decode + forward), without start-up"
                    yield f"- {label}: {ratio:.2f} (at most 1.25)"
        for name in (f"textbook {LONG} epochs", f"textbook {LONG} epochs, extrapolated"):
            if name in after and (ours := after.get(f"zoo {LONG} epochs")):
                yield f"- {name} / zoo, without start-up: {after[name] / ours:.1f} (at least 20)"


def page(results: Mapping[str, Any]) -> str:
    """Return the page in markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    lead = f"{results['date']}, {results['machine']}, Python {results['python']}, {versions}."
    memory = f"Medians, by `head_training.py`. Memory is the {results['memory']}."
    return "\n".join(["# Training the heads of frozen networks", "", lead, memory, *table(results)])
