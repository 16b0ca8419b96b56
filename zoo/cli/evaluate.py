"""`zoo evaluate`."""

from __future__ import annotations

from typing import Any

import click

from zoo.cli.group import Settings, ZooCommand
from zoo.cli.output import percent, print_json, print_line, print_table
from zoo.terminal import say

FEW_CLASSES = 20


def print_metrics(metrics: dict[str, Any]) -> None:
    """Print metrics for people: totals, classes, and the confusion matrix of a few classes."""
    print_line(f"images  {metrics['images']:,}")
    print_line(f"loss    {metrics['loss']:.4f}")
    print_line(f"top-1   {percent(metrics['top1'])}")
    print_line(f"top-5   {percent(metrics['top5'])}")
    print_line()
    few = len(metrics["per_class"]) <= FEW_CLASSES
    numbers = [str(number) for number in range(1, len(metrics["per_class"]) + 1)]
    rows = []
    for number, (name, said), counts in zip(
        numbers, metrics["per_class"].items(), metrics["confusion"], strict=True
    ):
        row = [number, name, str(said["images"]), percent(said["top1"])]
        rows.append(row + ([str(count or ".") for count in counts] if few else []))
    header = ["", "CLASS", "IMAGES", "TOP-1", *(numbers if few else [])]
    print_table(header, rows, right=" ".join(["IMAGES", "TOP-1", *numbers]))


@click.command(cls=ZooCommand, name="evaluate")
@click.argument("model")
@click.option(
    "--data",
    metavar="DATA",
    help="A folder, a CSV or TSV of path and label, cifar10:DIR or mnist:DIR; by default the "
    "embedded set.",
)
@click.option("--split", metavar="NAME", help="By default test where there is one, else val.")
@click.option("--batch-size", type=click.IntRange(min=1), default=32, show_default=True)
@click.option("--workers", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--bad-images", type=click.Choice(["error", "skip"]), default="error", show_default=True
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(
    settings: Settings,
    model: str,
    data: str | None,
    split: str | None,
    batch_size: int,
    workers: int,
    bad_images: str,
    device: str,
    as_json: bool,
) -> None:
    """Measure MODEL, a model file or a run folder, on images, given as to `zoo finetune`.

    Classes are matched by name. In the confusion matrix a row is a true class, a column what the
    model said.
    """
    from zoo.inference.predictor import load_model

    loaded = load_model(model, settings.registry(), device)
    metrics = loaded.evaluate(data, split, batch_size, workers, bad_images)
    if as_json:
        print_json(metrics)
        return
    if metrics["bad_images"]:
        say(f"zoo: {len(metrics['bad_images'])} images cannot be read")
    print_metrics(metrics)
