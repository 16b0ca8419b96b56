"""`zoo embed`."""

from __future__ import annotations

from pathlib import Path

import click

from zoo.cli.group import ComputingCommand, Settings
from zoo.cli.output import print_json, print_line


@click.command(cls=ComputingCommand, name="embed")
@click.argument("name")
@click.option("--data", required=True, metavar="DATA", help="Images, as for `zoo finetune`.")
@click.option("--out", required=True, type=click.Path(path_type=Path), metavar="FILE")
@click.option("--workers", type=click.IntRange(min=0), default=0, show_default=True)
@click.option(
    "--bad-images", type=click.Choice(["error", "skip"]), default="error", show_default=True
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:1, ...")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--quiet", is_flag=True, help="Only the result.")
@click.pass_obj
def command(
    settings: Settings,
    name: str,
    data: str,
    out: Path,
    workers: int,
    bad_images: str,
    device: str,
    as_json: bool,
    quiet: bool,
) -> None:
    """Write the features that NAME, a backbone or a model file, makes of images.

    Features are what its main head reads. FILE ends in .safetensors, with labels, classes and
    paths in it, or in .npy, with those in a .json beside it. --data may be a folder without classes
    too.
    """
    from zoo.inference.embed import check_format, embedding, write_features
    from zoo.inference.loading import load_features
    from zoo.terminal import Progress

    check_format(out)
    progress, registry = Progress(quiet), settings.registry()
    model = load_features(name, registry, device)
    every = model.network.task.open_all(data)
    for notice in every.notices:
        progress.notice(f"{every.name}: {notice}")
    limit = int(registry.config.defaults["cache_gib"] * (1 << 30))
    with embedding(
        model, every, progress, limit, workers=workers, bad_images=bad_images
    ) as embedded:
        said = write_features(embedded, model, out)
    for path, reason in sorted(embedded.bad.items()):
        progress.notice(f"left out: {path}: {reason}")
    if as_json:
        print_json({"path": str(out), **said, "bad_images": embedded.bad})
        return
    print_line(f"{said['images']:,} images, {said['width']:,} numbers each: {out}")
