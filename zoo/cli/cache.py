"""`zoo cache`: what zoo keeps in its cache folder, and clearing it."""

from __future__ import annotations

from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

import click

from zoo.cache import KINDS, CacheEntry, entries
from zoo.cli.group import Entry, Settings, ZooGroup
from zoo.cli.output import print_json, print_table
from zoo.errors import UsageError, did_you_mean
from zoo.files import cache_dir
from zoo.terminal import say

COMMANDS = (Entry("clear", "zoo.cli.cache_clear", "Delete kept features, weights or all of it."),)


def describe(each: CacheEntry) -> dict[str, Any]:
    """Return something in the cache with the keys of `zoo cache --json`."""
    known = ("weights", "size", "precision", "device")
    return {
        "kind": each.kind,
        "name": each.name,
        "path": str(each.path),
        "bytes": each.size,
        "used": datetime.fromtimestamp(each.used).astimezone().isoformat(timespec="seconds"),
        "images": each.images,
        **{key: each.metadata.get(key) for key in known},
    }


def short_size(count: int) -> str:
    """Return bytes for people: `12.3 MiB`."""
    size, unit = float(count), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def select(patterns: tuple[str, ...]) -> list[CacheEntry]:
    """Return what is in the cache and matches: a kind, or a pattern of names; all without one.

    Raises:
        UsageError: a pattern matches nothing, though there is something.
    """
    everything = [each for kind in KINDS for each in entries(kind)]
    if not patterns:
        return everything
    found = [
        each for each in everything if any(p == each.kind or matches(each, p) for p in patterns)
    ]
    for pattern in patterns:
        if pattern not in KINDS and not any(matches(each, pattern) for each in everything):
            names = [*KINDS, *sorted({each.name for each in everything})]
            hint = did_you_mean(pattern, names, f"there are {', '.join(KINDS)}, and names")
            raise UsageError(f"nothing in the cache is called {pattern!r}", hint)
    return found


def matches(each: CacheEntry, pattern: str) -> bool:
    """Whether a pattern means something: by its name, with or without its source, or its file."""
    names = (each.name, each.name.rpartition("/")[2], each.path.name)
    return any(fnmatchcase(name, pattern) for name in names)


@click.command(
    cls=ZooGroup,
    name="cache",
    table=COMMANDS,
    invoke_without_command=True,
    subcommand_metavar="[COMMAND] [ARGS]...",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(context: click.Context, as_json: bool) -> None:
    """Show what zoo keeps: features, weights that were converted, catalogues, downloads.

    Kept features are why a second training on the same images runs no image through the backbone.
    All of it can be had again, so all of it may be deleted at any time.
    """
    if context.invoked_subcommand is not None:
        return
    found = select(())
    if as_json:
        print_json([describe(each) for each in found])
        return
    print_table(
        ["KIND", "NAME", "WEIGHTS", "PIXELS", "PRECISION", "IMAGES", "SIZE", "LAST USED"],
        [_row(each) for each in found],
        right="IMAGES SIZE",
    )
    settings = context.ensure_object(Settings)
    limit = settings.registry().config.defaults["cache_gib"]
    total = sum(each.size for each in found)
    say(f"{short_size(total)} in {cache_dir()}; features may take {limit:g} GiB")


def _row(each: CacheEntry) -> list[str]:
    what = describe(each)
    pixels = "x".join(str(side) for side in what["size"] or ())
    used = datetime.fromtimestamp(each.used).strftime("%Y-%m-%d %H:%M")
    images = f"{each.images:,}" if each.images is not None else ""
    name = each.name if len(each.name) <= 40 else f"{each.name[:36]} ..."
    weights, precision = what["weights"] or "", what["precision"] or ""
    return [each.kind, name, weights, pixels, precision, images, short_size(each.size), used]
