"""The sections of the report on semantic segmentation."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping
from typing import Any

from PIL import Image

from zoo.errors import counted
from zoo.sections import (
    BarChart,
    DataTable,
    Gallery,
    Number,
    Numbers,
    Part,
    Section,
    SmallImage,
    Text,
)
from zoo.tasks import reports
from zoo.tasks.reports import RunResults
from zoo.terminal import percent

# Classes of a chart, a legend and a line.
MAX_BARS, MAX_COLORS, MAX_WEAK = 60, 40, 5
# A class with a smaller share of the pixels is rare.
RARE = 0.02


def split_numbers(split: str, values: Mapping[str, Any]) -> tuple[Number, ...]:
    """Return the metrics of a split."""
    classes = counted(len(values.get("per_class", ())), "class")
    return (
        Number(f"Mean IoU, {split}", percent(values["miou"]), "mean over classes"),
        Number("Pixel accuracy", percent(values["pixel_accuracy"]), "of labelled pixels"),
        Number("Loss", f"{values['loss']:.3f}", "mean cross-entropy per pixel"),
        Number("Images", f"{values['images']:,}", classes),
    )


def curves(run: RunResults) -> tuple[Part, ...]:
    """Return charts of loss, mean IoU and pixel accuracy by epoch."""
    labels = {"miou": "mean IoU", "pixel_accuracy": "pixel accuracy"}
    return reports.learning_curves(run, labels, percent=tuple(labels))


def sections(run: RunResults) -> Iterator[Section]:
    """Yield the sections of a run, without those that it has no results for."""
    metrics = run.record["metrics"]
    parts: list[Part] = [Numbers(split_numbers(*each)) for each in metrics.items()]
    if not metrics:
        parts.append(Text("There was no validation split, so nothing was measured."))
    elif "val" in metrics:
        text = "`val` chose the best epoch, so its IoU is slightly optimistic; `test` is not."
        parts.append(Text(text, note=True))
    yield Section("Results", tuple(parts), reports.NUMBERS)
    for split, values in metrics.items():
        yield Section(f"Classes, {split}", tuple(_classes(split, values)), reports.NUMBERS + 1)
    if charts := curves(run):
        yield Section("Learning curves", charts, reports.CURVES)
    if run.results:
        yield from _images(run)
    if steps := tuple(map(Text, next_steps(run))):
        yield Section("What to try next", steps, reports.NEXT)


def _classes(split: str, values: Mapping[str, Any]) -> Iterator[Part]:
    """Yield IoU and pixels of each class."""
    rows = values["per_class"]
    total = max(sum(row["pixels"] for row in rows.values()), 1)
    cells = tuple(
        (name, percent(row["iou"]), f"{row['pixels']:,}", percent(row["pixels"] / total))
        for name, row in rows.items()
    )
    header = ("Class", "IoU", "Pixels", "Of all pixels")
    yield DataTable(header, cells, header[1:], f"Intersection over union of each class on {split}")
    known = sorted(((row["iou"], name) for name, row in rows.items() if row["iou"] is not None))
    bars = tuple((name, (iou,)) for iou, name in known[:MAX_BARS])
    yield BarChart(f"IoU of each class on {split}, the lowest first", bars, percent=True)


def _images(run: RunResults) -> Iterator[Section]:
    """Yield the images of the lowest IoU with mask and prediction, and the IoU of all."""
    worst = run.results["worst"]
    if not worst:
        return
    split, samples = worst["split"], run.results["samples"][worst["split"]]
    images = []
    for each in worst["shown"]:
        name, iou = samples["name"][each["row"]], percent(samples["iou"][each["row"]])
        for number, data in enumerate(each["images"]):
            what = "prediction" if number else "mask"
            lines = (f"IoU {iou}" if number else "mask", name)
            images.append(SmallImage(base64.b64decode(data), f"{what} of {name}", lines))
    parts: list[Part] = []
    if images:
        caption = (
            f"{counted(len(images) // 2, 'image')} of {split} as the network sees it, the lowest "
            "mean IoU first: left the mask, right the prediction. Black classes and pixels without "
            "a label are not coloured."
        )
        parts += [Gallery(tuple(images), caption), _legend(run)]
    bins = [0] * 10
    for iou in samples["iou"]:
        bins[min(int(iou * 10), 9)] += 1
    bars = tuple((f"{10 * n} to {10 * n + 10} %", (float(size),)) for n, size in enumerate(bins))
    parts.append(BarChart(f"Images of {split} by their mean IoU", bars))
    yield Section("Worst images", tuple(parts), reports.MISTAKES)


def _legend(run: RunResults) -> Gallery:
    """Return a square in the colour of each class."""
    squares = []
    for name, color in zip(run.record["plan"]["classes"], run.results["palette"], strict=True):
        content = io.BytesIO()
        Image.new("RGB", (24, 8), color).save(content, "PNG")
        squares.append(SmallImage(content.getvalue(), f"colour of {name}", (name,)))
    return Gallery(tuple(squares[:MAX_COLORS]), "Colours of the classes", small=True)


def next_steps(run: RunResults) -> Iterator[str]:
    """Yield what to try next, each with the number that it follows from."""
    weak = weak_classes(run)
    if not weak:
        return
    split, values = _measured(run)
    total = max(sum(row["pixels"] for row in values["per_class"].values()), 1)
    iou, name, pixels = weak[0]
    text = f"{name} has the lowest IoU, {percent(iou)}, and {percent(pixels / total)} of the pixels"
    if pixels / total < RARE:
        yield f"{text} of {split}: `--class-weights balanced` weights rare classes."
    else:
        yield f"{text} of {split}: look at its masks among the worst images."
    if _frozen(run):
        yield "Only the heads were trained: `--train all` or `--recipe head-then-all` may gain."


def _frozen(run: RunResults) -> bool:
    return all(phase.get("policy") == "head" for phase in run.record["plan"].get("phases", ()))


def _measured(run: RunResults) -> tuple[str, Mapping[str, Any]]:
    metrics = run.record["metrics"]
    split = "val" if "val" in metrics else "test"
    return split, metrics[split]


def weak_classes(run: RunResults) -> list[tuple[float, str, int]]:
    """Return IoU, name and pixels of the classes below the mean IoU, the lowest first."""
    if not run.record["metrics"]:
        return []
    _, values = _measured(run)
    rows = values["per_class"].items()
    known = [(row["iou"], name, row["pixels"]) for name, row in rows if row["iou"] is not None]
    return sorted(each for each in known if each[0] < min(values["miou"], 0.999))


def summary_lines(run: RunResults) -> Iterator[tuple[str, str]]:
    """Yield the weakest classes and what to try next, each with its label."""
    if weak := weak_classes(run):
        shown = (f"{name[:24]} {percent(iou)}" for iou, name, _ in weak[:MAX_WEAK])
        rest = len(weak) - MAX_WEAK
        more = f" and {rest:,} more" if rest > 0 else ""
        yield "weak", f"IoU of {', '.join(shown)}{more}"
    for step in next_steps(run):
        yield "try", step
