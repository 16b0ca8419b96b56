"""`zoo report`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from zoo.cli.complete import complete_run
from zoo.cli.group import FilePath, Settings, ZooCommand
from zoo.cli.options import json_option, out_option
from zoo.cli.output import print_json, print_line

if TYPE_CHECKING:
    from pathlib import Path


@click.command(cls=ZooCommand, name="report")
@click.argument(
    "runs",
    nargs=-1,
    required=True,
    type=FilePath(),
    metavar="RUN...",
    shell_complete=complete_run,
)
@out_option("FILE", "Path of the report. [default: report.html in RUN; comparison.html of several]")
@json_option
@click.pass_obj
def command(settings: Settings, runs: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """Write the report of RUN again, or one that compares several.

    RUN is the folder of a training. A report is one HTML file that needs neither network nor the
    images of the training. For several runs it shows the metrics side by side, the settings that
    differ, and the learning curves.
    """
    from zoo.reporting.write import report

    result = report(runs, settings.registry(), out)
    if as_json:
        print_json(result)
    else:
        print_line(f"report {result['path']}")
