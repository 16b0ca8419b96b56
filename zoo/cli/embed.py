"""`zoo embed`."""

from __future__ import annotations

from pathlib import Path

import click

from zoo.cli.group import ComputingCommand, Settings
from zoo.cli.options import (
    device_option,
    json_option,
    quiet_option,
    read_columns,
    reading_options,
    source_options,
)
from zoo.cli.output import print_json, print_line
from zoo.errors import counted


@click.command(cls=ComputingCommand, name="embed", needs="zoo.inference.embed")
@click.argument("name")
@click.option(
    "--data",
    required=True,
    metavar="DATA",
    help="Data set, as for `zoo finetune`, or a folder of images.",
)
@source_options
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A .safetensors or .npy file.",
)
@reading_options
@device_option
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
    workers: int,
    bad_images: str,
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write the features of images: the input of the main head of NAME, a backbone or model file.

    A .safetensors FILE also contains labels, classes and paths; for .npy they are written to a
    .json file beside it.
    """
    from zoo.inference.embed import embed
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
    )
    if as_json:
        print_json(summary)
        return
    print_line(
        f"{counted(summary['images'], 'image')}, {counted(summary['width'], 'feature')} each: {out}"
    )
