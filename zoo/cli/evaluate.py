"""`zoo evaluate`."""

from __future__ import annotations

import click

from zoo.cli.group import ComputingCommand, Settings
from zoo.cli.output import print_json, print_line, print_table
from zoo.terminal import say


@click.command(cls=ComputingCommand, name="evaluate")
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
    """Measure MODEL on images, given as to `zoo finetune`.

    MODEL is a model file, a run folder, or the name of a pretrained backbone, which is then
    measured as it is published. Classes are matched by name. In a confusion matrix a row is a true
    class, a column what the model said.
    """
    from zoo.inference.loading import load_model, load_pretrained, model_file_at

    open_model = load_model if model_file_at(model) else load_pretrained
    loaded = open_model(model, settings.registry(), device=device)
    metrics = loaded.evaluate(data, split, batch_size, workers, bad_images)
    if as_json:
        print_json(metrics)
        return
    if metrics["bad_images"]:
        say(f"zoo: {len(metrics['bad_images'])} images cannot be read")
    lines, table = loaded.network.task.metric_table(metrics)
    for line in lines:
        print_line(line)
    if table is not None:
        print_line()
        print_table(table.header, table.rows, right=" ".join(table.right))
