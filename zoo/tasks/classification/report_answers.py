"""What it costs to answer `none of these` below a probability."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from zoo.sections import DataTable, LineChart, Section, Series, Text
from zoo.tasks import reports
from zoo.tasks.classification.statistics import answered_above
from zoo.tasks.reports import RunResults
from zoo.terminal import percent

# Fewer images measure no shares.
MIN_IMAGES = 20


def answers(run: RunResults, split: str) -> Iterator[Section]:
    """Yield the share of images that are answered above a probability, and their accuracy.

    They follow from the probabilities of `predict`: with a temperature, those of held-out
    predictions of all training images; else those of a split.

    Args:
        run: with results of its samples.
        split: whose probabilities are taken where no head was solved for.
    """
    stored, where = run.results.get("answered"), "held-out predictions of the training images"
    if stored is None:
        samples = run.results["samples"].get(split)
        if samples is None or "held_out" in run.results:  # of an earlier zoo
            return
        best = [each[0] for each in samples["classes"]]
        right = [a == b for a, b in zip(best, samples["true"], strict=True)]
        stored = answered_above([each[0] for each in samples["probabilities"]], right)
        where = f"the predictions of {split}"
    images = stored[0][1]
    if images < MIN_IMAGES:
        return
    text = (
        "`zoo predict --min-probability P` answers `none of these` where the most probable class "
        f"is below P. What that costs, by {where}:"
    )
    note = (
        "Of images of the trained classes; those of others are unknown here. A larger P answers "
        "fewer images, more of them rightly."
    )
    parts = (Text(text), _table(stored, images), _chart(stored, images), Text(note, note=True))
    yield Section("Answers above a probability", parts, reports.CALIBRATION + 1)


def _table(rows: Sequence[Sequence[float]], images: int) -> DataTable:
    cells = tuple(
        (
            f"{least:g}",
            percent(answered / images),
            percent(correct / answered if answered else None),
            f"{int(answered - correct):,}",
            f"{int(images - answered):,}",
        )
        for least, answered, correct in rows
    )
    header = ("P", "Answered", "Accuracy of the answered", "Wrong answers", "None of these")
    return DataTable(header, cells, header, f"{images:,} images")


def _chart(rows: Sequence[Sequence[float]], images: int) -> LineChart:
    answered = tuple((least, count / images) for least, count, _ in rows)
    accuracy = tuple((least, correct / count) for least, count, correct in rows if count)
    series = (Series("accuracy of the answered", accuracy), Series("share answered", answered))
    return LineChart("Answers by their least probability", "P", "share", series, percent=True)
