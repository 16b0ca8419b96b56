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


@click.command(cls=ComputingCommand, name="embed")
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
    from zoo.inference.embed import check_format, embedding, write_features
    from zoo.inference.loading import load_features
    from zoo.terminal import Progress

    check_format(out)
    progress, registry = Progress(quiet), settings.registry()
    model = load_features(name, registry, device)
    images = model.network.task.open_all(data, classes=classes, columns=read_columns(columns))
    for notice in images.notices:
        progress.notice(f"{images.name}: {notice}")
    limit = int(registry.config.defaults["cache_gib"] * (1 << 30))
    with embedding(
        model, images, progress, limit, workers=workers, bad_images=bad_images
    ) as embedded:
        summary = write_features(embedded, model, out)
    for path, reason in sorted(embedded.bad.items()):
        progress.notice(f"skipped: {path}: {reason}")
    if as_json:
        print_json({"path": str(out), **summary, "bad_images": embedded.bad})
        return
    print_line(
        f"{counted(summary['images'], 'image')}, {counted(summary['width'], 'feature')} each: {out}"
    )
