"""Format metrics and predictions of image classification for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.errors import counted
from zoo.tasks.base import Table
from zoo.terminal import percent

MAX_MATRIX_CLASSES = 20
MAX_NAMES = 5


def prediction_lines(answer: Mapping[str, Any]) -> list[str]:
    """Return one line per class: probability and name."""
    return [f"{percent(each['probability']):>7}  {each['class']}" for each in answer["predictions"]]


def metric_line(values: Mapping[str, Any], chance: float | None) -> str:
    """Return accuracy and loss of a split as one line.

    Balanced accuracy is included where classes are uneven, and the names of classes that are never
    predicted.
    """
    balanced = f", balanced {percent(values['balanced_accuracy'])}" if _uneven(values) else ""
    never = _never_predicted(values)
    return (
        f"top-1 {percent(values['top1'])}{balanced}, top-5 {percent(values['top5'])}, "
        f"loss {values['loss']:.4f} on {counted(values['images'], 'image')}; "
        f"chance is {percent(chance)}"
        f"{f'; never predicted: {never}' if never else ''}"
    )


def _uneven(values: Mapping[str, Any]) -> bool:
    """Whether the classes of a split differ in their number of images."""
    return len({row["images"] for row in values["per_class"].values() if row["images"]}) > 1


def _never_predicted(values: Mapping[str, Any]) -> str:
    """Return the first names of the classes of a split that are never predicted."""
    names = values["never_predicted"]
    more = len(names) - MAX_NAMES
    return ", ".join(names[:MAX_NAMES]) + (f" and {more:,} more" if more > 0 else "")


def metric_table(values: Mapping[str, Any]) -> tuple[list[str], Table]:
    """Return totals, and a table of classes, with the confusion matrix for up to 20 of them."""
    lines = [
        f"images  {values['images']:,}",
        f"loss    {values['loss']:.4f}",
        f"top-1   {percent(values['top1'])}",
        f"top-5   {percent(values['top5'])}",
        f"chance  {percent(values['chance'])}",
    ]
    if _uneven(values):
        lines.insert(3, f"balanced accuracy {percent(values['balanced_accuracy'])}")
    if never := _never_predicted(values):
        lines.append(f"never predicted: {never}")
    per_class, confusion = values["per_class"], values["confusion"]
    show_matrix = confusion is not None and len(per_class) <= MAX_MATRIX_CLASSES
    numbers = tuple(str(number) for number in range(1, len(per_class) + 1))
    rows = []
    for index, (name, row) in enumerate(per_class.items()):
        counts = tuple(str(count or ".") for count in confusion[index]) if show_matrix else ()
        rows.append((numbers[index], name, str(row["images"]), percent(row["top1"]), *counts))
    header = ("", "CLASS", "IMAGES", "TOP-1", *(numbers if show_matrix else ()))
    ranks = tuple(2.0 if row["top1"] is None else row["top1"] for row in per_class.values())
    matrix = numbers if show_matrix else ()
    return lines, Table(header, tuple(rows), ("IMAGES", "TOP-1", *numbers), matrix, ranks)
