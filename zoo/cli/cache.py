"""`zoo cache`: list the cache folder."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import click

from zoo.cache import TRIMMED, CacheEntry, select
from zoo.cli.group import CommandEntry, Settings, ZooGroup
from zoo.cli.options import json_option
from zoo.cli.output import print_json, print_table
from zoo.files import cache_dir
from zoo.terminal import print_notice

COMMANDS = (
    CommandEntry("clear", "zoo.cli.cache_clear", "Delete entries of the cache, or all of them."),
)


def describe(entry: CacheEntry) -> dict[str, Any]:
    """Return a cache entry with the keys of `zoo cache --json`."""
    keys = ("weights", "size", "precision", "device")
    return {
        "kind": entry.kind,
        "name": entry.name,
        "path": str(entry.path),
        "bytes": entry.size,
        "used": datetime.fromtimestamp(entry.used).astimezone().isoformat(timespec="seconds"),
        "images": entry.images,
        **{key: entry.metadata.get(key) for key in keys},
    }


def short_size(count: int) -> str:
    """Format a number of bytes such as `12.3 MiB`."""
    size, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


@click.command(
    cls=ZooGroup,
    name="cache",
    table=COMMANDS,
    invoke_without_command=True,
    subcommand_metavar="[COMMAND] [ARGS]...",
)
@json_option
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """List the cache: features, conversions, weights, catalogues, downloads.

    With cached features, a second training on the same images runs no image through the backbone.
    The cache may be cleared at any time: every entry can be computed or downloaded again.
    """
    if context.invoked_subcommand is not None:
        return
    cached = select(())
    if as_json:
        print_json([describe(entry) for entry in cached])
        return
    print_table(
        ["KIND", "NAME", "WEIGHTS", "PIXELS", "PRECISION", "IMAGES", "SIZE", "LAST USED"],
        [_row(entry) for entry in cached],
        right="IMAGES SIZE",
    )
    settings = context.ensure_object(Settings)
    limit = settings.registry().config.defaults["cache_gib"]
    total = sum(entry.size for entry in cached)
    limited = f"{' and '.join(TRIMMED)} are limited to {limit:g} GiB"
    print_notice(f"zoo: {short_size(total)} in {cache_dir()}; {limited}")


def _row(entry: CacheEntry) -> list[str]:
    fields = describe(entry)
    pixels = "x".join(str(side) for side in fields["size"] or ())
    used = datetime.fromtimestamp(entry.used).strftime("%Y-%m-%d %H:%M")
    images = f"{entry.images:,}" if entry.images is not None else ""
    name = entry.name if len(entry.name) <= 40 else f"{entry.name[:36]} ..."
    weights, precision = fields["weights"] or "", fields["precision"] or ""
    return [entry.kind, name, weights, pixels, precision, images, short_size(entry.size), used]
