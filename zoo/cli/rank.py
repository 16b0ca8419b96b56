"""`zoo rank`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from zoo.cli.complete import complete_backbone
from zoo.cli.group import ComputingCommand, Settings
from zoo.cli.options import (
    device_option,
    engine_option,
    json_option,
    quiet_option,
    read_columns,
    reading_options,
    source_options,
)
from zoo.cli.output import print_json, print_table, short_count
from zoo.terminal import percent

if TYPE_CHECKING:
    from zoo.inference.rank import Rank

FACTORS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9}


class Count(click.ParamType):
    """A parameter count such as 30M."""

    name = "count"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Parse the number."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMB]?)", str(value).upper())
        if match is None:
            self.fail(f"{value!r} is not a number like 30M", param, ctx)
        return int(float(match[1]) * FACTORS[match[2]])


@click.command(cls=ComputingCommand, name="rank", needs="zoo.inference.rank")
@click.argument("patterns", nargs=-1, shell_complete=complete_backbone)
@click.option("--data", required=True, metavar="DATA", help="Data set, as for `zoo finetune`.")
@source_options
@click.option("--group", metavar="COLUMN", help="Column of a table whose groups stay in one fold.")
@click.option("--group-by", metavar="REGEX", help="As --group, by what REGEX finds in the path.")
@click.option(
    "--max-params", type=Count(), metavar="N", help="Largest parameter count. [default: 30M]"
)
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    default=20,
    show_default=True,
    help="Largest number of candidates.",
)
@reading_options
@device_option
@engine_option
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the folds.")
@json_option
@quiet_option
@click.pass_obj
def command(
    settings: Settings,
    patterns: tuple[str, ...],
    data: str,
    columns: str | None,
    classes: int | None,
    group: str | None,
    group_by: str | None,
    max_params: int | None,
    limit: int,
    workers: int | None,
    bad_images: str,
    device: str,
    engine: str,
    seed: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Rank pretrained backbones by how well their frozen features separate the classes of DATA.

    For each candidate, report the accuracy of a linear probe over five folds, and that of the
    nearest neighbours. Without PATTERNS, the candidates are one of each kind of network, those with
    local weights first. Features are cached: an interrupted ranking resumes, and training the
    winner computes only its head. The command fails only if every candidate does.
    """
    from zoo.inference.rank import rank_all
    from zoo.terminal import Progress

    ranks = rank_all(
        patterns,
        data,
        settings.registry(),
        Progress(quiet),
        classes=classes,
        columns=read_columns(columns),
        group=group,
        group_by=group_by,
        max_params=max_params,
        limit=limit,
        workers=workers,
        bad_images=bad_images,
        device=device,
        engine=engine,
        seed=seed,
    )
    if as_json:
        print_json([each.to_dict() for each in ranks])
    else:
        _print_ranks(ranks)
    if ranks[0].error:  # of all candidates, since failures are last
        raise ranks[0].error


def _print_ranks(ranks: list[Rank]) -> None:
    print_table(
        ["BACKBONE", "WEIGHTS", "PROBE", "+-", "KNN", "SECONDS", "PARAMS", "ERROR"],
        [_row(each) for each in ranks],
        right="PROBE +- KNN SECONDS PARAMS",
    )


def _row(each: Rank) -> list[str]:
    seconds = "-" if each.seconds is None else f"{each.seconds:.1f}"
    error = each.error.message if each.error else ""
    return [
        each.backbone,
        each.weights,
        percent(each.accuracy),
        percent(each.spread),
        percent(each.knn),
        seconds,
        short_count(each.params),
        error if len(error) <= 60 else f"{error[:56]} ...",
    ]
