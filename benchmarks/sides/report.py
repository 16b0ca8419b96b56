"""What the records of `head_training.py` come to: medians, what is reckoned, tables and bars."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from statistics import median
from typing import Any

FLOORS = ("decode", "forward", "decode and forward")
OTHERS = ("textbook", "fastai", "transformers")
LONG = 20
ONE_PASS_BAR, TEXTBOOK_BAR = 1.25, 20.0

Record = Mapping[str, Any]

# What the README shows of each network: a line for each of these, and what it says of a side.
SHOWN = {
    "zoo": ("zoo", "seconds"),
    "zoo, again on the same images": ("zoo again", "seconds"),
    f"zoo, {LONG} epochs": (f"zoo {LONG} epochs", "seconds"),
    "the textbook's loop, 1 epoch": ("textbook", "seconds"),
    f"the textbook's loop, {LONG} epochs, reckoned": (
        f"textbook {LONG} epochs, reckoned",
        "seconds",
    ),
    "transformers' Trainer, 1 epoch": ("transformers", "seconds"),
    "fastai, 1 epoch": ("fastai", "seconds"),
    "start-up, zoo": ("zoo", "startup"),
    "start-up, the textbook's loop": ("textbook", "startup"),
    "decoding all images, then a bare forward": ("decode + forward", "after"),
    "peak memory in MB, zoo": ("zoo", "memory_mb"),
    "peak memory in MB, the textbook's loop": ("textbook", "memory_mb"),
    "held-out pictures right, zoo": ("zoo", "top1"),
    f"held-out pictures right, zoo, {LONG} epochs": (f"zoo {LONG} epochs", "top1"),
    "held-out pictures right, the textbook's loop, 1 epoch": ("textbook", "top1"),
}
HEADINGS = ("side", "seconds", "start-up", "after it", "images/s", "memory MB", "top-1", "forwards")


def middle(records: list[Record], name: str) -> float | None:
    """Return the median of what the runs of a side came to; None where none says it."""
    values = [record[name] for record in records if record.get(name) is not None]
    return median(values) if values else None


def summary(records: list[Record], images: int) -> dict[str, float | None]:
    """Return the medians of a side's runs.

    Args:
        records: of its runs.
        images: in both splits; a pass goes through all of them.

    Returns:
        `seconds`, `startup`, `after` (seconds but for start-up), `epoch`, `images_per_second` of
        what went through the backbone after start-up, `memory_mb`, `top1` and `forwards`.
    """
    rows = [_completed(record, images) for record in records]
    names = (*_completed({"seconds": 0.0}, 0), "memory_mb", "top1")
    return {name: middle(rows, name) for name in names}


def _completed(record: Record, images: int) -> dict[str, Any]:
    startup, epochs = record.get("startup"), record.get("epochs") or ()
    after = record["seconds"] - (startup or 0.0)
    forwards = record.get("backbone_forwards", images * max(len(epochs), 1))
    return {
        **record,
        "startup": startup,
        "after": after,
        "epoch": sum(epochs) / len(epochs) if epochs else None,
        "forwards": forwards,
        "images_per_second": forwards / after if forwards and after else None,
    }


def reckon(said: Mapping[str, float | None], measured: int, epochs: int) -> dict[str, float | None]:
    """Say what a side would take for more epochs than it ran: each as long as those it did run.

    Args:
        said: its summary.
        measured: how many epochs it ran.
        epochs: how many it is to have run.
    """
    assert said["seconds"] is not None
    assert said["after"] is not None
    assert said["epoch"] is not None
    further = (epochs - measured) * said["epoch"]
    forwards = said["forwards"] and said["forwards"] / measured * epochs
    after = said["after"] + further
    return {
        **said,
        "seconds": said["seconds"] + further,
        "after": after,
        "forwards": forwards,
        "images_per_second": forwards / after if forwards else None,
        "memory_mb": None,
        "top1": None,
    }


def rows(sides: Mapping[str, list[Record]], images: int) -> dict[str, dict[str, float | None]]:
    """Return the table's rows of one network: what was measured, and what is reckoned from it."""
    found = {name: summary(records, images) for name, records in sides.items() if records}
    for name in OTHERS:
        if name in found and found[name]["epoch"] is not None:
            measured = len(sides[name][0]["epochs"])
            label = f"{name} {LONG} epochs"
            if label not in found:
                found[f"{label}, reckoned"] = reckon(found[name], measured, LONG)
    return found


def overview(results: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of one table that has all networks side by side, in fewer rows."""
    images = results["pictures"]["images"]
    found = {network: rows(sides, images) for network, sides in results["networks"].items()}
    for sides in found.values():
        one_pass = _sum(*(sides.get(floor, {}).get("after") for floor in ("decode", "forward")))
        sides["decode + forward"] = {"after": one_pass}
    yield f"| seconds | {' | '.join(found)} |"
    yield "|---" * (len(found) + 1) + "|"
    for label, (side, column) in SHOWN.items():
        digits = 2 if column == "top1" else 0
        cells = [_cell(sides.get(side, {}).get(column), digits) for sides in found.values()]
        yield f"| {label} | {' | '.join(cells)} |"


def page(results: Mapping[str, Any]) -> str:
    """Return all tables as a page of their own."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    runs = [len(records) for sides in results["networks"].values() for records in sides.values()]
    said = f"""# Training the heads of frozen networks

{results["date"]}, {results["machine"]}, Python {results["python"]}, {versions}; {min(runs)} to
{max(runs)} runs of each side, of which these are medians. Written by `head_training.py`, which says
how; from `head_training.json`. Memory is the {results["memory"]}.
"""
    lines: list[str] = []
    for line in table(results):
        # A list where the report has lines, and a blank line around each table.
        separate = bool(lines) and lines[-1].startswith("|") != line.startswith("|")
        lines += [""] * separate
        lines.append(f"- {line}" if line and not line.startswith("|") else line)
    return said + "\n" + "\n".join(lines).strip() + "\n"


def _cell(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:,.{digits}f}"


def table(results: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of all tables."""
    images = results["pictures"]["images"]
    digits = {"seconds": 1, "startup": 1, "after": 1, "images_per_second": 0}
    digits |= {"memory_mb": 0, "top1": 3, "forwards": 0}
    for network, sides in results["networks"].items():
        found = rows(sides, images)
        yield f"{network}: {images:,} images, {results['machine']}"
        yield f"| {' | '.join(HEADINGS)} |"
        yield "|---" * len(HEADINGS) + "|"
        for name, row in found.items():
            cells = [_cell(row.get(column), places) for column, places in digits.items()]
            yield f"| {' | '.join([name, *cells])} |"
        yield from bars(found)
        yield ""


def bars(found: Mapping[str, Mapping[str, float | None]]) -> Iterator[str]:
    """Yield how zoo stands against the floors and the textbook, as far as they were measured."""

    def seconds(name: str, column: str = "after") -> float | None:
        return found[name][column] if name in found else None

    trained = [name for name in found if name.startswith("zoo") and name != "zoo again"]
    floors = {"decode + forward": _sum(seconds("decode"), seconds("forward"))}
    floors["decode and forward in one pass"] = seconds("decode and forward")
    for floor, least in floors.items():
        ratios = [f"{name} {(seconds(name) or 0) / least:.2f}" for name in trained if least]
        if ratios:
            yield f"start-up apart, to {floor} (bar {ONE_PASS_BAR}): {', '.join(ratios)}"
    for label in (f"textbook {LONG} epochs", f"textbook {LONG} epochs, reckoned"):
        ours, theirs = f"zoo {LONG} epochs", seconds(label)
        if theirs and ours in found:
            apart = theirs / (seconds(ours) or 1)
            whole = (seconds(label, "seconds") or 0) / (seconds(ours, "seconds") or 1)
            said = f"{apart:.1f}x start-up apart, {whole:.1f}x with it"
            yield f"{ours} is quicker than {label} (bar {TEXTBOOK_BAR:g}x): {said}"
    if "zoo again" in found:
        yield f"images through the backbone in a second run: {found['zoo again']['forwards']:g}"


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other
