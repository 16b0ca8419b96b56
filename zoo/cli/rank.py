"""`zoo rank`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

from zoo.cli.group import ComputingCommand, Settings
from zoo.cli.output import print_json, print_table, short_count
from zoo.errors import DataError
from zoo.terminal import percent

if TYPE_CHECKING:
    from zoo.inference.rank import Rank

FACTORS = {"": 1, "K": 10**3, "M": 10**6, "B": 10**9}


class Count(click.ParamType):
    """A number of parameters such as 30M."""

    name = "count"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Read the number."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMB]?)", str(value).upper())
        if found is None:
            self.fail(f"{value!r} is not a number like 30M", param, ctx)
        return int(float(found[1]) * FACTORS[found[2]])


@click.command(cls=ComputingCommand, name="rank")
@click.argument("patterns", nargs=-1)
@click.option("--data", required=True, metavar="DATA", help="As `zoo finetune` takes it.")
@click.option("--max-params", type=Count(), metavar="N", help="Such as 30M, the default.")
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--workers", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--bad-images", type=click.Choice(["error", "skip"]), default="error", show_default=True
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the folds.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--quiet", is_flag=True, help="Only the result.")
@click.pass_obj
def command(
    settings: Settings,
    patterns: tuple[str, ...],
    data: str,
    max_params: int | None,
    limit: int,
    workers: int,
    bad_images: str,
    device: str,
    seed: int,
    as_json: bool,
    quiet: bool,
) -> None:
    """Rank pretrained backbones by how well their frozen features tell your images apart.

    Of each candidate: accuracy of the best head on its features, on five folds of the images, and
    of their nearest neighbours. Without PATTERNS one of each kind of network is tried, weights
    that are at hand first. What was computed is kept: a ranking that was stopped goes on, and
    training the winner starts at its head.
    """
    from zoo.inference.rank import candidates, rank
    from zoo.spec import IMAGE_CLASSIFICATION
    from zoo.tasks.base import load_task
    from zoo.terminal import Progress

    progress, registry = Progress(quiet), settings.registry()
    task = load_task(registry.task(IMAGE_CLASSIFICATION))
    every = task.open_all(data)
    if not every.classes:
        raise DataError(f"{every.name} has no classes", "give a folder of class folders")
    for notice in every.notices:
        progress.notice(f"{every.name}: {notice}")
    chosen = candidates(registry, patterns, max_params, limit)
    found: list[Rank] = []
    ranks = rank(
        chosen, every, registry, progress, device, seed, workers=workers, bad_images=bad_images
    )
    for number, each in enumerate(ranks, start=1):
        found.append(each)
        said = f"cannot be tried: {each.error}" if each.error else percent(each.accuracy)
        progress.notice(f"{number}/{len(chosen)} {each.backbone}: {said}")
    found.sort(key=lambda each: (each.accuracy is None, -(each.accuracy or 0)))
    if as_json:
        print_json([each.to_dict() for each in found])
        return
    print_table(
        ["BACKBONE", "WEIGHTS", "PROBE", "+-", "KNN", "SECONDS", "PARAMS", "WHY NOT"],
        [_row(each) for each in found],
        right="PROBE +- KNN SECONDS PARAMS",
    )


def _row(each: Rank) -> list[str]:
    seconds = "-" if each.seconds is None else f"{each.seconds:.1f}"
    why = each.error or ""
    return [
        each.backbone,
        each.weights,
        percent(each.accuracy),
        percent(each.spread),
        percent(each.knn),
        seconds,
        short_count(each.params),
        why if len(why) <= 60 else f"{why[:56]} ...",
    ]
