"""Sections on the data of a classifier: label errors, similar images, the worth of more images."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from zoo.errors import counted
from zoo.sections import DataTable, Gallery, LineChart, Part, Section, Series, SmallImage, Text
from zoo.tasks import reports
from zoo.tasks.classification.statistics import class_scores
from zoo.tasks.reports import RunResults
from zoo.terminal import percent

MORE_IMAGES = 100


def image_of(encoded: str | None, alt: str, lines: Sequence[str]) -> SmallImage | None:
    """Return an image of a gallery from a stored file; None without one."""
    if not encoded:
        return None
    return SmallImage(base64.b64decode(encoded), alt, tuple(lines))


def findings(run: RunResults) -> Iterator[Section]:
    """Yield label errors, similar images of two splits, and the worth of more images."""
    results = run.results
    if "label_errors" in results:
        yield _label_errors(results["label_errors"], run.record["plan"]["classes"])
    pairs = [(split, pair) for split, each in results.get("similar", {}).items() for pair in each]
    if pairs:
        yield _similar(pairs)
    if len(results.get("growth", ())) > 2:
        yield _growth(results["growth"])


def _label_errors(errors: Mapping[str, Any], classes: Sequence[str]) -> Section:
    method = (
        "Confident learning (Northcutt et al., 2021) on predictions of each training image by "
        "heads that were fitted without it, in cross-validation on the cached features. It finds "
        "unusual images too: look before relabelling."
    )
    images = []
    for each in errors["shown"]:
        label, other = classes[each["label"]], classes[each["other"]]
        own, better = map(percent, each["probabilities"])
        text = f"{each['name']}: labelled {label} ({own}), more probably {other} ({better})"
        lines = (f"{other} {better}?", f"labelled: {label} {own}", each["name"])
        if image := image_of(each["image"], text, lines):
            images.append(image)
    count = f"{counted(errors['found'], 'probable label error')} among {errors['images']:,} images"
    parts: list[Part] = [Text(f"{count} of `train`.")]
    if images:
        shown = f"{len(images)} of them, the least agreement with the label first"
        parts.append(Gallery(tuple(images), shown))
    return Section("Probable label errors", (*parts, Text(method, note=True)), reports.LABELS)


def _similar(pairs: Sequence[tuple[str, Mapping[str, Any]]]) -> Section:
    text = (
        "Images of another split that look like one of `train` by their features. If they show the "
        "same object, the accuracy on that split is too high."
    )
    images = []
    for split, pair in pairs:
        for number, (name, data) in enumerate(zip(pair["names"], pair["images"], strict=True)):
            where = "train" if number else split
            alt = f"{name} of {where}, similar to {pair['names'][1 - number]}"
            lines = (f"{where}, cosine {pair['cosine']:.2f}", name)
            if image := image_of(data, alt, lines):
                images.append(image)
    caption = f"{counted(len(pairs), 'pair')}, side by side"
    parts = (Text(text), Gallery(tuple(images), caption))
    return Section("Similar images across splits", parts, reports.LABELS + 1)


def power_law(points: Sequence[tuple[int, float]]) -> tuple[float, float] | None:
    """Return scale and exponent of `error = scale * images ** -exponent`, by least squares of logs.

    Args:
        points: number of images and error; those without any error are left out.

    Returns:
        None with fewer than three points, or where the error does not fall.
    """
    logs = [(math.log(images), math.log(error)) for images, error in points if error > 0]
    if len(logs) < 3:
        return None
    mean_x, mean_y = (sum(each) / len(logs) for each in zip(*logs, strict=True))
    spread = sum((x - mean_x) ** 2 for x, _ in logs)
    slope = sum((x - mean_x) * (y - mean_y) for x, y in logs) / spread if spread else 0.0
    return (math.exp(mean_y - slope * mean_x), -slope) if slope < 0 else None


def expected_gain(growth: Sequence[Sequence[Any]], more: int = MORE_IMAGES) -> float | None:
    """Return the expected gain in accuracy by more images; None where no curve fits."""
    law = power_law([(images, 1 - sum(v) / len(v)) for images, v in growth])
    if law is None:
        return None
    images = growth[-1][0]
    return float(law[0] * (images ** -law[1] - (images + more) ** -law[1]))


def _growth(growth: Sequence[Sequence[Any]]) -> Section:
    mean = [(float(images), sum(v) / len(v)) for images, v in growth]
    series = [Series("measured", tuple(mean))]
    gain, images = expected_gain(growth), growth[-1][0]
    law = power_law([(n, 1 - sum(v) / len(v)) for n, v in growth])
    parts: list[Part] = []
    if law is not None and gain is not None:
        ends = [*(n for n, _ in mean), float(images + MORE_IMAGES)]
        fitted = tuple((n, 1 - law[0] * n ** -law[1]) for n in ends)
        series.append(Series("power law", fitted, dashed=True))
        points = f"{100 * gain:.1f} percentage points"
        parts.append(Text(f"Another {MORE_IMAGES} images would be worth about {points} on `val`."))
    else:
        parts.append(Text("The accuracy on `val` does not grow with the images in a regular way."))
    title = "Accuracy on val by number of training images"
    parts.append(LineChart(title, "training images", "accuracy", tuple(series), True, log=True))
    method = (
        "Heads fitted on random subsets of the cached features, the mean of two for each size, "
        "with the penalty of the whole set. The dashed line is the power law of the error (least "
        "squares of logarithms); beyond the last point it is an extrapolation."
    )
    parts.append(Text(method, note=True))
    return Section("More images", tuple(parts), reports.MORE_DATA)


def temperature_parts(run: RunResults) -> Iterator[Part]:
    """Yield what the temperature of the model file changes."""
    rows = tuple(
        (temperature, percent(values["ece"]), f"{values['nll']:.4f}")
        for temperature, values in run.results.get("held_out", {}).items()
    )
    if rows:
        header = ("Temperature", "ECE", "NLL")
        caption = "Held-out predictions of the training images"
        yield DataTable(header, rows, header, caption)
    if len(rows) > 1:
        text = (
            f"`predict` divides logits by {rows[1][0]}, fitted on the held-out predictions; the "
            "numbers above are of the logits themselves."
        )
        yield Text(text, note=True)


def next_steps(run: RunResults, split: str | None) -> Iterator[str]:
    """Yield what to try next, each with the number that it follows from."""
    if split is None:
        return
    values = run.record["metrics"][split]
    chance, top1 = values.get("chance") or 0.0, values["top1"]
    if top1 - chance < 0.1:
        text = f"Accuracy is {percent(top1)}, and guessing reaches {percent(chance)}: check the "
        yield f"{text}labels with `zoo check`, and that the weights are pretrained."
    if errors := run.results.get("label_errors", {}).get("found"):
        yield f"Look at {counted(errors, 'probable label error')} in the training images."
    if similar := sum(map(len, run.results.get("similar", {}).values())):
        text = f"{counted(similar, 'pair')} of images are similar across splits: `--group-by` "
        yield f"{text}keeps images of one object in one split."
    gain = expected_gain(run.results.get("growth", ()))
    if gain is not None and gain >= 0.01:
        text = f"Another {MORE_IMAGES} images would be worth about {100 * gain:.1f} percentage "
        yield f"{text}points: more images pay."
    elif gain is not None:
        text = f"Another {MORE_IMAGES} images would be worth only {100 * gain:.1f} percentage "
        yield f"{text}points: try another backbone with `zoo rank`, or `--recipe head-then-all`."
    yield from _weak_classes(values)
    if top1 - values.get("balanced_accuracy", top1) > 0.05:
        text = f"Balanced accuracy is {percent(values['balanced_accuracy'])}, below "
        yield f"{text}{percent(top1)}: `--class-weights balanced` weights rare classes."


def _weak_classes(values: Mapping[str, Any]) -> Iterator[str]:
    """Yield the class of the lowest recall, if it is much below the mean."""
    if not values.get("confusion"):
        return
    scores = zip(values["per_class"], class_scores(values["confusion"]), strict=True)
    known = [(each.recall, name, each.images) for name, each in scores if each.recall is not None]
    recall, name, images = min(known, default=(1.0, "", 0))
    if recall < values["balanced_accuracy"] - 0.15:
        text = (
            f"{name} has the lowest recall, {percent(recall)} of {counted(images, 'image')}, and "
        )
        yield f"{text}the mean is {percent(values['balanced_accuracy'])}: add images of it."
