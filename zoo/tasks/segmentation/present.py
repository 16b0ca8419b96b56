"""Format metrics and predictions of semantic segmentation for the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zoo.errors import counted
from zoo.tasks.base import Table
from zoo.terminal import percent


def prediction_lines(answer: Mapping[str, Any]) -> list[str]:
    """Return one line per class with its share of the pixels, and the paths of mask and overlay."""
    lines = [f"{percent(each['fraction']):>7}  {each['class']}" for each in answer["predictions"]]
    return lines + [f"{key:>7}  {answer[key]}" for key in ("mask", "overlay") if answer[key]]


def metric_line(values: Mapping[str, Any]) -> str:
    """Return mean IoU, pixel accuracy and loss of a split as one line."""
    return (
        f"mIoU {percent(values['miou'])}, pixels {percent(values['pixel_accuracy'])}, "
        f"loss {values['loss']:.4f} on {counted(values['images'], 'image')}"
    )


def metric_table(values: Mapping[str, Any]) -> tuple[list[str], Table]:
    """Return totals, and a table of classes."""
    lines = [
        f"images  {values['images']:,}",
        f"loss    {values['loss']:.4f}",
        f"mIoU    {percent(values['miou'])}",
        f"pixels  {percent(values['pixel_accuracy'])}",
    ]
    rows = tuple(
        (name, f"{each['pixels']:,}", percent(each["iou"]))
        for name, each in values["per_class"].items()
    )
    ious = (each["iou"] for each in values["per_class"].values())
    ranks = tuple(2.0 if iou is None else iou for iou in ious)
    return lines, Table(("CLASS", "PIXELS", "IOU"), rows, ("PIXELS", "IOU"), ranks=ranks)
