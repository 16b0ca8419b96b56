"""`zoo predict`."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.cli.complete import complete_model, complete_path
from zoo.cli.group import ComputingCommand, Settings
from zoo.cli.options import (
    batch_size_option,
    device_option,
    engine_option,
    json_option,
    out_option,
    weights_option,
)
from zoo.cli.output import print_line, stdout
from zoo.errors import DataError, UsageError, counted
from zoo.terminal import print_notice

if TYPE_CHECKING:
    from zoo.inference.predictor import Predictor
    from zoo.results import Prediction

STDIN = "-"
# Value of --explain without a folder; no path has that character.
BESIDE = "\0"


@click.command(cls=ComputingCommand, name="predict", needs="zoo.inference.loading")
@click.argument("model", shell_complete=complete_model)
@click.argument("images", nargs=-1, metavar="IMAGE...", shell_complete=complete_path)
@click.option(
    "--top",
    type=click.IntRange(min=1),
    default=5,
    show_default=True,
    help="Number of classes per image.",
)
@click.option(
    "--min-probability",
    type=click.FloatRange(0, 1),
    metavar="P",
    help="Answer `none of these` where no class is as probable.",
)
@out_option("DIR", "Folder for masks and overlays, of segmentation models.")
@click.option(
    "--explain",
    is_flag=False,
    flag_value=BESIDE,
    metavar="[DIR]",
    help="Write where the network looks, as IMAGE.explain.png; into DIR, or beside the images.",
)
@weights_option
@batch_size_option
@device_option
@engine_option
@click.option(
    "--csv",
    "table",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write a table, a row per prediction of an image.",
)
@json_option
@click.option("--json-lines", is_flag=True, help="Print a JSON object per image and line.")
@click.pass_obj
def command(
    settings: Settings,
    model: str,
    images: tuple[str, ...],
    top: int,
    min_probability: float | None,
    out: Path | None,
    explain: str | None,
    weights: str | None,
    batch_size: int,
    device: str,
    engine: str,
    table: Path | None,
    as_json: bool,
    json_lines: bool,
) -> None:
    """Predict images with MODEL.

    MODEL is a model file, a run folder, or the name of a backbone, which predicts the classes of
    its published weights. An IMAGE is a file, a folder, which is read with its subfolders, a quoted
    pattern such as "photos/**/*.jpg", or -, which reads paths from stdin, one per line.
    """
    images, explained = _read_explain(images, explain)
    from zoo.data.bad_images import describe_incomplete
    from zoo.data.outputs import check_output
    from zoo.inference.loading import load_any

    if as_json and json_lines:
        raise UsageError("--json and --json-lines exclude each other", "give one of them")
    if table is not None:
        check_output(table, "--csv", "predictions.csv")
    loaded = load_any(model, settings.registry(), weights, device, engine=engine)
    count, failed = 0, _Failed()
    with ExitStack() as stack:
        writers = _writers(stack, loaded, table, as_json, json_lines)
        given = _find(images), top, batch_size, out
        answers = loaded.stream(*given, explain=explained, min_probability=min_probability)
        printed = as_json or json_lines or table is None
        for answer in _with_progress(answers, images, quiet=printed and stdout().isatty()):
            count += 1
            for write in writers:
                write(answer)
            failed.add(answer)
    for line in describe_incomplete(sorted(loaded.incomplete)):
        print_notice(f"zoo: {line}")
    if not count:
        raise DataError("stdin names no image", "give a path per line")
    if table is not None and not (as_json or json_lines):
        print_line(f"{counted(count, 'image')}: {table}")
    failed.report(count)


def _read_explain(
    images: tuple[str, ...], explain: str | None
) -> tuple[tuple[str, ...], str | bool]:
    """Return the images, and the value of `explain` for `Predictor.predict`.

    A file after `--explain` is no folder to write into, but the first image.

    Raises:
        MissingParameter: there is no image.
    """
    if explain not in (None, BESIDE) and (explain == STDIN or Path(explain).is_file()):
        images, explain = (explain, *images), BESIDE
    if not images:
        context = click.get_current_context()
        argument = next(each for each in context.command.params if each.name == "images")
        raise click.MissingParameter(ctx=context, param=argument)
    return images, explain is not None if explain in (None, BESIDE) else explain


def _writers(
    stack: ExitStack, loaded: Predictor, table: Path | None, as_json: bool, json_lines: bool
) -> list[Any]:
    """Open the requested outputs, and return the functions that write an answer to each."""
    from zoo.cli.answers import csv_answers, json_answers, json_line_answers, text_answers

    opened = []
    if as_json:
        opened.append(json_answers())
    elif json_lines:
        opened.append(json_line_answers())
    elif table is None:
        opened.append(text_answers(lambda each: _lines_of(loaded, each)))
    if table is not None:
        opened.append(csv_answers(table))
    return [stack.enter_context(each) for each in opened]


def _lines_of(loaded: Predictor, answer: Any) -> list[str]:
    """Return the lines of an image: its prediction, and the path of its activation map.

    The first one is that of an answer which is no class.
    """
    lines = loaded.network.task.prediction_lines(answer)
    if "answer" in answer and answer["answer"] is None:
        lines.insert(0, "none of these")
    return lines + ([f"map {answer['explanation']}"] if answer.get("explanation") else [])


def _find(images: tuple[str, ...]) -> Iterable[Any]:
    """Return the images of all arguments, those of stdin as its lines arrive."""
    from zoo.data.find import FoundImages, find_images, in_folders

    if STDIN not in images:
        return FoundImages(images)
    parts = (in_folders(_lines()) if each == STDIN else find_images([each]) for each in images)
    return itertools.chain.from_iterable(parts)


def _lines() -> Iterator[str]:
    """Yield the lines of stdin as paths, whatever their encoding."""
    for line in sys.stdin.buffer:
        if path := line.rstrip(b"\r\n"):
            yield os.fsdecode(path)


def _with_progress(answers: Iterator[Any], images: tuple[str, ...], quiet: bool) -> Iterator[Any]:
    """Yield answers, with a progress bar unless quiet, since they are printed on the terminal."""
    from zoo.terminal import Progress

    progress = Progress(quiet)
    total = None
    if progress.shows_bars() and STDIN not in images:
        total = sum(1 for _ in _find(images))
    return progress.wrap(answers, total, "images")


class _Failed:
    """Counts images that cannot be read, and keeps the paths of the first."""

    def __init__(self) -> None:
        self.count = 0
        self.first: list[str] = []

    def add(self, answer: Prediction) -> None:
        """Count an answer if it has an error."""
        if "error" in answer:
            self.count += 1
            self.first = [*self.first, answer["path"]][:3]

    def report(self, images: int) -> None:
        """Raise an error if there were any.

        Raises:
            DataError: names the first paths.
        """
        if self.count:
            share = f"{self.count:,} of {counted(images, 'image')}"
            message = f"{share} cannot be read: {', '.join(self.first)}"
            partial = self.count < images
            raise DataError(message, "the others were predicted" if partial else None)
