"""`zoo check`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from zoo.cli.complete import complete_path, complete_task
from zoo.cli.group import ComputingCommand, Settings
from zoo.cli.options import json_option, quiet_option, read_columns, source_options
from zoo.cli.output import print_json, print_line, print_table

if TYPE_CHECKING:
    from zoo.data.inspection import DataReport


@click.command(cls=ComputingCommand, name="check", needs="zoo.tasks.inspection")
@click.argument("data", shell_complete=complete_path)
@click.option(
    "--task",
    "task_name",
    metavar="NAME",
    shell_complete=complete_task,
    help="Task that reads it. [default: by its layout, else image-classification]",
)
@source_options
@json_option
@quiet_option
@click.pass_obj
def command(
    settings: Settings,
    data: str,
    task_name: str | None,
    columns: str | None,
    classes: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Check the data set DATA without training on it.

    Reads every image, and prints the number of images of each class and split, sizes, formats,
    files that are ignored, images with equal content across splits and classes, and all images that
    cannot be read. The exit code is 3 if any of these would stop a training.
    """
    from zoo.data.bad_images import UnreadableImages
    from zoo.tasks.inspection import check_data
    from zoo.terminal import Progress

    report = check_data(
        data,
        settings.registry(),
        Progress(quiet),
        task=task_name,
        classes=classes,
        columns=read_columns(columns),
    )
    if as_json:
        print_json(report.to_dict())
    else:
        _print_report(report)
    if report.bad:
        raise UnreadableImages(report.bad, sum(report.images.values()))


def _print_report(report: DataReport) -> None:
    """Print what is known of a data set: totals, a table of classes, and findings."""
    from zoo.data.bad_images import describe_bad, describe_incomplete
    from zoo.data.value_range import describe_ranges
    from zoo.errors import counted

    images = counted(sum(report.images.values()), "image")
    classes = counted(len(report.classes), "class")
    print_line(f"{report.name}  {report.task}, {images}, {classes}")
    print_line(f"splits  {report.reason}")
    if report.sizes:
        sizes = [f"{name} {width} x {height}" for name, (width, height) in report.sizes.items()]
        print_line(f"sizes  {', '.join(sizes)}")
    print_line(f"formats  {', '.join(f'{n} ({count:,})' for n, count in report.formats.items())}")
    if report.ranges:
        print_line(f"values  {describe_ranges(report.ranges)}, scaled to black and white")
    print_line()
    splits = list(report.images)
    named = [name for name in report.classes if any(map(bool, report.counts.values()))]
    rows = [[name, *(f"{report.counts[each][name]:,}" for each in splits)] for name in named]
    total = ["all images", *(f"{report.images[each]:,}" for each in splits)]
    columns = [each.upper() for each in splits]
    print_table(["CLASS", *columns], [*rows, total], right=" ".join(columns))
    findings = [
        *report.notices,
        *report.duplicates.notices(),
        *describe_incomplete(report.incomplete),
        *(f"unreadable: {line}" for line in describe_bad(report.bad, len(report.bad))),
    ]
    if report.duplicates.repeated:
        copies = counted(report.duplicates.repeated, "further copy")
        findings.append(f"{copies} of images within a split and class")
    if findings:
        print_line()
    for line in findings:
        print_line(line)
