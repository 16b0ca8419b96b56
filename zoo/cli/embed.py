"""`zoo embed`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from zoo.cli.complete import complete_model
from zoo.cli.group import ComputingCommand, Settings
from zoo.cli.options import (
    device_option,
    engine_option,
    json_option,
    out_option,
    quiet_option,
    read_columns,
    reading_options,
    source_options,
)
from zoo.cli.output import print_json, print_line
from zoo.errors import counted


@click.command(cls=ComputingCommand, name="embed", needs="zoo.inference.embed")
@click.argument("name", shell_complete=complete_model)
@click.option(
    "--data",
    required=True,
    metavar="DATA",
    help="Data set, as for `zoo finetune`, a folder of images, or shards: 'shards-*.tar'.",
)
@source_options
@out_option("FILE", "A .safetensors or .npy file; a folder for shards.", required=True)
@click.option(
    "--part", metavar="I/N", help="Part I of N of the shards, for one of N jobs. [default: all]"
)
@reading_options
@device_option
@engine_option
@json_option
@quiet_option
@click.pass_obj
def command(
    settings: Settings,
    name: str,
    data: str,
    columns: str | None,
    classes: int | None,
    out: Path,
    part: str | None,
    workers: int | None,
    bad_images: str,
    device: str,
    engine: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write the features of images: the input of the main head of NAME, a backbone or model file.

    A .safetensors FILE also contains labels, classes and paths; for .npy they are written to a
    .json file beside it. Each shard of WebDataset has its own file in the folder FILE; one that
    exists is skipped. A damaged shard is named, and the others go on.
    """
    from zoo.inference.embed import embed
    from zoo.inference.embed_shards import raise_failed
    from zoo.options.part import Part
    from zoo.terminal import Progress

    summary = embed(
        name,
        data,
        out,
        settings.registry(),
        Progress(quiet),
        classes=classes,
        columns=read_columns(columns),
        workers=workers,
        bad_images=bad_images,
        device=device,
        part=None if part is None else Part.parse(part),
        engine=engine,
    )
    if as_json:
        print_json(summary)
    else:
        print_line(_describe(summary))
    if "failed" in summary:
        raise_failed(summary)


def _describe(summary: dict[str, Any]) -> str:
    """Return a summary in one line."""
    features = f", {counted(summary['width'], 'feature')} each by {summary['engine']}"
    width = features if summary["images"] else ""
    line = f"{counted(summary['images'], 'image')}{width}: {summary['path']}"
    if "shards" in summary:
        counts = ", ".join(f"{count:,} {what}" for what, count in summary["shards"].items())
        line += f"; shards: {counts}"
    return line
