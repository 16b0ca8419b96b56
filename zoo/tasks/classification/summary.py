"""Where a classifier fails, and what to try next, as lines for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from zoo.tasks.classification.report import detailed_split
from zoo.tasks.classification.report_findings import next_steps
from zoo.tasks.classification.statistics import class_scores, frequent_confusions, wilson_interval
from zoo.tasks.reports import RunResults
from zoo.terminal import percent

# Classes and confusions of a line, and the letters of a name.
MOST, MAX_NAME = 5, 24


def summary_lines(run: RunResults) -> Iterator[tuple[str, str]]:
    """Yield interval, weakest classes, frequent confusions and next steps, each with its label."""
    split = detailed_split(run.record["metrics"])
    if split is None:
        return
    values = run.record["metrics"][split]
    images = values["images"]
    low, high = wilson_interval(round(values["top1"] * images), images)
    yield "", f"top-1 of {split} is between {percent(low)} and {percent(high)} (95 % interval)"
    if confusion := values.get("confusion"):
        yield from _failures(split, tuple(values["per_class"]), confusion, values)
    for step in next_steps(run, split):
        yield "try", step


def _failures(
    split: str,
    names: Sequence[str],
    confusion: Sequence[Sequence[int]],
    values: Mapping[str, Any],
) -> Iterator[tuple[str, str]]:
    scores = zip(class_scores(confusion), names, strict=True)
    weak = sorted(
        (each.recall, index, _short(name), each.images)
        for index, (each, name) in enumerate(scores)
        if each.recall is not None and each.recall < min(values["balanced_accuracy"], 1.0)
    )
    if weak:
        shown = (f"{name} {percent(recall)} of {count:,}" for recall, _, name, count in weak[:MOST])
        yield "weak", f"{', '.join(shown)}{_more(len(weak), 'class', 'classes')}"
    if pairs := frequent_confusions(confusion):
        shown = (f"{_short(names[r])} as {_short(names[c])} {n:,}" for n, r, c in pairs[:MOST])
        wrong = sum(count for count, *_ in pairs)
        text = f"{wrong:,} of {values['images']:,} images of {split}: {', '.join(shown)}"
        yield "wrong", f"{text}{_more(len(pairs), 'pair', 'pairs')}"


def _more(count: int, one: str, many: str) -> str:
    rest = count - MOST
    return f" and {rest:,} more {one if rest == 1 else many}" if rest > 0 else ""


def _short(name: str) -> str:
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 3]}..."
