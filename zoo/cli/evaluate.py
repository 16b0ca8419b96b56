"""`zoo evaluate`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from zoo.cli.complete import complete_model
from zoo.cli.group import ComputingCommand, Settings
from zoo.cli.options import (
    batch_size_option,
    columns_option,
    device_option,
    engine_option,
    json_option,
    read_columns,
    reading_options,
    weights_option,
)
from zoo.cli.output import print_json
from zoo.cli.summary import REPORT, print_summary
from zoo.terminal import print_notice

if TYPE_CHECKING:
    from zoo.options.given import BadImages


@click.command(cls=ComputingCommand, name="evaluate", needs="zoo.inference.loading")
@click.argument("model", shell_complete=complete_model)
@click.option(
    "--data",
    metavar="DATA",
    help="Data set, as for `zoo finetune`. [default: the embedded set]",
)
@columns_option
@weights_option
@click.option("--split", metavar="NAME", help="Split. [default: test, else val]")
@batch_size_option
@reading_options
@device_option
@engine_option
@json_option
@click.pass_obj
def command(
    settings: Settings,
    model: str,
    data: str | None,
    columns: str | None,
    weights: str | None,
    split: str | None,
    batch_size: int,
    workers: int | None,
    bad_images: BadImages,
    device: str,
    engine: str,
    as_json: bool,
) -> None:
    """Evaluate MODEL on a data set.

    MODEL is a model file, a run folder, or the name of a backbone, which is evaluated with its
    published weights. Classes are matched by name. In a confusion matrix, rows are true and columns
    predicted classes. What is printed fits into 24 lines; --json has every class.
    """
    from zoo.data.bad_images import describe_bad, describe_incomplete
    from zoo.inference.loading import load_any
    from zoo.models.own_file import locate_model

    loaded = load_any(model, settings.registry(), weights, device, engine=engine)
    metrics = loaded.evaluate(
        data, split, batch_size, workers, bad_images, columns=read_columns(columns)
    )
    for line in describe_incomplete(metrics["incomplete_images"]):
        print_notice(f"zoo: {line}")
    if as_json:
        print_json(metrics)
        return
    for line in describe_bad(metrics["bad_images"]):
        print_notice(f"zoo: skipped: {line}")
    lines, table = loaded.network.task.metric_table(metrics)
    location = locate_model(model, settings.registry())
    report = None if location is None else location.path.parent / REPORT
    print_summary(lines, table, [f"report {report}"] if report and report.exists() else [])
