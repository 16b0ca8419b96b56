"""The sections of the report on a classifier."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from zoo.errors import counted
from zoo.sections import (
    BarChart,
    Confusion,
    DataTable,
    Gallery,
    Number,
    Numbers,
    Part,
    Reliability,
    Section,
    SmallImage,
    Text,
)
from zoo.tasks import reports
from zoo.tasks.classification.report_answers import answers
from zoo.tasks.classification.report_findings import (
    findings,
    image_of,
    next_steps,
    temperature_parts,
)
from zoo.tasks.classification.statistics import (
    class_scores,
    expected_calibration_error,
    frequent_confusions,
    reliability_bins,
    wilson_interval,
)
from zoo.tasks.reports import RunResults
from zoo.terminal import percent

# With more classes, a matrix is no longer readable; the most frequent confusions are listed.
MAX_MATRIX = 60
MAX_PAIRS = 30
TOP5 = "true class among five"
# Fewer images measure no calibration.
MIN_CALIBRATION = 50


def sections(run: RunResults) -> Iterator[Section]:
    """Yield the sections of a run, without those that it has no results for."""
    yield from _overview(run)
    if curves := accuracy_curves(run):
        yield Section("Learning curves", curves, reports.CURVES)
    yield from _confusion(run)
    split = detailed_split(run.record["metrics"])
    if split is not None and run.results:
        yield from _mistakes(run, split)
        yield from _calibration(run, split)
        yield from answers(run, split)
        yield from findings(run)
        yield from _activation(run)
    yield from _balance(run)
    if steps := tuple(map(Text, next_steps(run, split))):
        yield Section("What to try next", steps, reports.NEXT)


def accuracy_curves(run: RunResults) -> tuple[Part, ...]:
    """Return charts of loss, accuracy and balanced accuracy by epoch."""
    labels = {"top1": "top-1", "balanced_accuracy": "balanced accuracy"}
    return reports.learning_curves(run, labels, percent=tuple(labels))


def detailed_split(metrics: Mapping[str, Any]) -> str | None:
    """Return the split whose images are shown: `val`, since a test split is not to learn from."""
    return next((name for name in ("val", "test") if name in metrics), None)


def _overview(run: RunResults) -> Iterator[Section]:
    """Yield the metrics of each split, and the scores of each class."""
    metrics = run.record["metrics"]
    parts: list[Part] = []
    for split, values in metrics.items():
        parts.append(Numbers(split_numbers(split, values)))
        if never := values.get("never_predicted"):
            parts.append(Text(f"No image of {split} is predicted as {', '.join(never)}."))
    if not metrics:
        parts.append(Text("There was no validation split, so nothing was measured."))
    elif run.record["plan"].get("recipe") != "probe" and "val" in metrics:
        text = "`val` chose the best epoch, so its accuracy is slightly optimistic; `test` is not."
        parts.append(Text(text, note=True))
    yield Section("Results", tuple(parts), reports.NUMBERS)
    for split, values in metrics.items():
        if values.get("confusion"):
            table = _class_table(split, values)
            yield Section(f"Classes, {split}", (table,), reports.NUMBERS + 1)


def split_numbers(split: str, values: Mapping[str, Any]) -> tuple[Number, ...]:
    """Return the metrics of a split."""
    images = values["images"]
    low, high = wilson_interval(round(values["top1"] * images), images)
    interval = f"{percent(low)} to {percent(high)} (95 %)"
    chance, classes = values.get("chance"), len(values.get("per_class", ()))
    # With five classes or fewer, the true one is always among the top five.
    top5 = () if 0 < classes <= 5 else (Number("Top-5", percent(values["top5"]), TOP5),)
    return (
        Number(
            f"Accuracy, {split}",
            percent(values["top1"]),
            interval=interval,
            bounds=(values["top1"], low, high),
        ),
        Number("Balanced accuracy", percent(values.get("balanced_accuracy")), "mean over classes"),
        Number("Chance", percent(chance), "the best constant guess"),
        *top5,
        Number("Loss", f"{values['loss']:.3f}", "mean cross-entropy"),
        Number("Images", f"{images:,}", counted(classes, "class")),
    )


def _class_table(split: str, values: Mapping[str, Any]) -> DataTable:
    scores = class_scores(values["confusion"])
    rows = [
        (
            name,
            percent(each.precision),
            percent(each.recall),
            percent(each.f1),
            f"{each.images:,}",
            f"{each.predicted:,}",
        )
        for name, each in zip(values["per_class"], scores, strict=True)
    ]
    header = ("Class", "Precision", "Recall", "F1", "Images", "Predicted")
    caption = f"Scores of each class on {split}; recall is the accuracy of the class"
    return DataTable(header, tuple(rows), header[1:], caption)


def _confusion(run: RunResults) -> Iterator[Section]:
    """Yield the confusion matrix of each split, or its most frequent confusions."""
    for split, values in run.record["metrics"].items():
        counts, names = values.get("confusion"), tuple(values.get("per_class", ()))
        if not counts:
            continue
        parts: list[Part] = []
        caption = f"True classes as rows, predicted ones as columns, {split}"
        if len(names) <= MAX_MATRIX:
            parts.append(Confusion(names, tuple(map(tuple, counts)), caption))
        if table := _pairs(names, counts):
            parts.append(table)
        if parts:
            yield Section(f"Confusion matrix, {split}", tuple(parts), reports.DETAILS)


def _pairs(names: Sequence[str], counts: Sequence[Sequence[int]]) -> DataTable | None:
    """Return the most frequent confusions of two classes; None without any."""
    confusions = frequent_confusions(counts)
    if not confusions:
        return None
    rows = tuple(
        (names[row], names[column], f"{count:,}", percent(count / sum(counts[row])))
        for count, row, column in confusions[:MAX_PAIRS]
    )
    header = ("True class", "Predicted class", "Images", "Of the true class")
    return DataTable(header, rows, header[2:], "Most frequent confusions")


def _mistakes(run: RunResults, split: str) -> Iterator[Section]:
    """Yield the images whose true class has the least probability."""
    samples = run.results["samples"].get(split)
    shown = run.results["mistakes"].get(split)
    if samples is None:
        return
    classes, images = run.record["plan"]["classes"], []
    for each in shown:
        row = each["row"]
        true, best = classes[samples["true"][row]], samples["classes"][row][0]
        name, confidence = samples["name"][row], percent(samples["probabilities"][row][0])
        text = f"{name}: {true}, predicted as {classes[best]} with {confidence}"
        lines = (f"{classes[best]} {confidence}", f"true: {true}", name)
        if image := image_of(each["image"], text, lines):
            images.append(image)
    wrong = sum(
        best[0] != true for best, true in zip(samples["classes"], samples["true"], strict=True)
    )
    if not wrong:
        parts: tuple[Part, ...] = (Text(f"Every image of {split} is predicted correctly."),)
    else:
        caption = (
            f"{len(images)} of {counted(wrong, 'mistake')} on {split}, the least probability of "
            "the true class first; below each image the predicted class with its probability."
        )
        parts = (Gallery(tuple(images), caption),)
    yield Section("Worst mistakes", parts, reports.MISTAKES)


def _calibration(run: RunResults, split: str) -> Iterator[Section]:
    """Yield how well probabilities agree with accuracy."""
    samples = run.results["samples"].get(split)
    if samples is None or len(samples["true"]) < MIN_CALIBRATION:
        return
    confidences = [best[0] for best in samples["probabilities"]]
    pairs = zip(samples["classes"], samples["true"], strict=True)
    bins = reliability_bins(confidences, [best[0] == true for best, true in pairs])
    nll = sum(-math.log(max(p, 1e-6)) for p in samples["probability"]) / len(samples["true"])
    numbers = Numbers(
        (
            Number("ECE", percent(expected_calibration_error(bins)), "confidence less accuracy"),
            Number("NLL", f"{nll:.3f}", "mean negative log-likelihood"),
            Number("Mean confidence", percent(sum(confidences) / len(confidences)), split),
        )
    )
    title = f"Accuracy by confidence on {split}"
    text = (
        "ECE is the expected calibration error over ten bins of equal width (Guo et al., 2017). "
        "Points below the diagonal are overconfident, those above it underconfident."
    )
    parts: list[Part] = [numbers, Reliability(title, tuple(bins)), Text(text, note=True)]
    parts += temperature_parts(run)
    yield Section("Calibration", tuple(parts), reports.CALIBRATION)


def _activation(run: RunResults) -> Iterator[Section]:
    """Yield images with the activation map of their predicted class."""
    stored = run.results.get("activation")
    if not stored:
        return
    title, place = "Where the network looks", reports.ATTENTION
    if reason := stored.get("reason"):
        yield Section(title, (Text(f"No activation maps: {reason}."),), place)
        return
    samples = run.results["samples"][stored["split"]]
    classes = run.record["plan"]["classes"]
    galleries: dict[bool, list[SmallImage]] = {False: [], True: []}
    for each in stored["shown"]:
        row = each["row"]
        true, best = samples["true"][row], samples["classes"][row][0]
        predicted = f"{classes[best]} {percent(samples['probabilities'][row][0])}"
        name = samples["name"][row]
        text = f"{name}, what speaks for {predicted}; it is {classes[true]}"
        lines = (predicted, f"true: {classes[true]}", name) if best != true else (predicted, name)
        if image := image_of(each["image"], text, lines):
            galleries[best == true].append(image)
    method = (
        "What each position adds to the logit of the predicted class: activation times gradient in "
        "the last spatial map before the head, its positive part (HiResCAM; Draelos and Carin, "
        "2020). For a linear head on pooled features that is the class activation map. Bright is "
        "the most of the image itself, so maps of two images do not compare; dark edges are "
        "outside of the crop."
    )
    shown = [
        Gallery(tuple(images), f"{counted(len(images), name)} of {stored['split']}, {order}")
        for images, name, order in (
            (galleries[False], "wrong prediction", "the worst mistakes"),
            (galleries[True], "right prediction", "spread over the split"),
        )
        if images
    ]
    if shown:
        yield Section(title, (*shown, Text(method, note=True)), place)


def _balance(run: RunResults) -> Iterator[Section]:
    """Yield the number of images of each class."""
    classes, counts = run.record["plan"]["classes"], dict(run.results.get("counts", {}))
    if not counts:
        for split, values in run.record["metrics"].items():
            counts[split] = [row["images"] for row in values.get("per_class", {}).values()]
    counts = {split: each for split, each in counts.items() if len(each) == len(classes)}
    if not counts:
        return
    order = sorted(range(len(classes)), key=lambda index: -sum(c[index] for c in counts.values()))
    bars = tuple(
        (classes[index], tuple(float(each[index]) for each in counts.values()))
        for index in order[:MAX_MATRIX]
    )
    chart = BarChart("Images of each class", bars, tuple(counts))
    parts: list[Part] = [chart]
    if len(classes) > MAX_MATRIX:
        parts.append(Text(f"The {MAX_MATRIX} largest of {counted(len(classes), 'class')}."))
    yield Section("Class balance", tuple(parts), reports.BALANCE)
