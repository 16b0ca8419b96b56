"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from zoo.cli.complete import complete_weights
from zoo.cli.group import FilePath
from zoo.options.table import ENGINES

if TYPE_CHECKING:
    from zoo.options.columns import Columns

Command = TypeVar("Command", bound=Callable[..., Any])

QUIET = "Print only the result."

device_option = click.option(
    "--device", default="auto", show_default=True, help="Device: auto, cpu, cuda, cuda:1, ..."
)
engine_option = click.option(
    "--engine",
    type=click.Choice(["auto", *ENGINES]),
    default="auto",
    show_default=True,
    help="Engine of frozen features.",
)
batch_size_option = click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    default=32,
    show_default=True,
    help="Images per batch.",
)
weights_option = click.option(
    "--weights",
    metavar="TEXT",
    shell_complete=complete_weights,
    help="A tag of a backbone, or a model file of it. [default: auto]",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
quiet_option = click.option("--quiet", is_flag=True, help=QUIET)
columns_option = click.option(
    "--columns", metavar="COLUMNS", help="Columns of a table: image=NAME,label=NAME,split=NAME."
)


def out_option(metavar: str, help: str, *, required: bool = False) -> Callable[[Command], Command]:
    """Return `--out`, a path to write, with its placeholder and help."""
    return click.option("--out", type=FilePath(), required=required, metavar=metavar, help=help)


def read_columns(given: str | None) -> Columns | None:
    """Return the value of `--columns`."""
    from zoo.options.columns import read_columns as read

    return None if given is None else read(given)


def source_options(command: Command) -> Command:
    """Add `--columns` and `--classes` to a command that opens a whole data set."""
    classes = click.option(
        "--classes",
        type=click.IntRange(min=2),
        metavar="N",
        help="Number of classes, to choose between two readings of folders.",
    )
    return columns_option(classes(command))


def reading_options(command: Command) -> Command:
    """Add `--workers` and `--bad-images` to a command that reads images."""
    workers = click.option(
        "--workers",
        type=click.IntRange(min=0),
        help="Processes that decode images; 0 for threads. On a GPU, one for each core by default.",
    )
    bad_images = click.option(
        "--bad-images",
        type=click.Choice(["error", "skip"]),
        default="error",
        show_default=True,
        help="What to do with an unreadable image.",
    )
    return workers(bad_images(command))
