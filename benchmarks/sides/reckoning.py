"""What more images than anybody measured cost, reckoned from the parts that were measured.

Each part grows with the number of images, so each is measured on as many as there is time for,
and multiplied. What a GPU would make of it was not measured, and is not reckoned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.sides.report import summary

NETWORK = "resnet18"
COUNTS = (1_000_000, 100_000_000)
PICTURE = 224 * 224 * 3
UNITS = ((86_400, "days"), (3_600, "hours"), (60, "minutes"))

Rows = Mapping[str, Mapping[str, Any]]


def growth(rows: Rows, kind: str, column: str = "memory_mb", unit: float = 2**20) -> float | None:
    """Return how much more each further image takes, from the fewest and the most measured.

    Args:
        rows: of `memory.json`.
        kind: which of them; what their names begin with.
        column: of the rows.
        unit: what the column counts in, in bytes or seconds.

    Returns:
        None where fewer than two such rows were measured.
    """
    mine = sorted((row for what, row in rows.items() if what.startswith(kind)), key=_images)
    if len(mine) < 2:
        return None
    more = mine[-1]["images"] - mine[0]["images"]
    return float((mine[-1][column] - mine[0][column]) * unit / more)


def _images(row: Mapping[str, Any]) -> int:
    return int(row["images"])


def costs(rows: Rows, heads: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return what a million and a hundred million images cost, in words.

    Args:
        rows: of `memory.json`.
        heads: `head_training.json`.
    """
    planned = growth(rows, "plan folder", "seconds", 1)
    named = growth(rows, "plan folder")
    indexed = growth(rows, "solve")
    solved = max((row for what, row in rows.items() if what.startswith("solve")), key=_images)
    through = summary(heads["networks"][NETWORK]["zoo"], heads["pictures"]["images"])
    assert planned is not None
    assert named is not None
    assert indexed is not None
    assert through["forwards"]
    assert through["epoch"]
    seconds = {
        "finding and planning": planned,
        "images through the backbone": through["epoch"] / through["forwards"],
        "solving for the head": solved["seconds"] / solved["images"],
    }
    sizes = {
        "memory for the index": named + indexed,
        "disk for kept features": solved["row_bytes"],
        "disk for `--cache-images`": PICTURE,
    }
    found = {}
    for words, parts in ((time_in_words, seconds), (size_in_words, sizes)):
        for what, each in parts.items():
            little, much = (words(each * count) for count in COUNTS)
            found[what] = (little, much)
    return found


def table_of_costs(rows: Rows, heads: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the reckoning; none where a part was not measured."""
    kinds = ("plan folder", "solve")
    if NETWORK not in heads["networks"] or any(growth(rows, kind) is None for kind in kinds):
        return
    yield "| reckoned | a million images | a hundred million |"
    yield "|---|---|---|"
    for what, (little, much) in costs(rows, heads).items():
        yield f"| {what} | {little} | {much} |"


def time_in_words(seconds: float) -> str:
    """Return seconds in the largest unit of which there are at least two."""
    for size, name in UNITS:
        if seconds >= 2 * size:
            return f"{_two_digits(seconds / size)} {name}"
    return f"{_two_digits(seconds)} seconds"


def size_in_words(size: float) -> str:
    """Return bytes in MiB, GiB or TiB."""
    for power, name in ((40, "TiB"), (30, "GiB")):
        if size >= 1 << power:
            return f"{_two_digits(size / (1 << power))} {name}"
    return f"{_two_digits(size / (1 << 20))} MiB"


def _two_digits(number: float) -> str:
    return f"{float(f'{number:.2g}'):,g}"
