"""`zoo fetch`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.cli.complete import complete_backbone, complete_tag
from zoo.cli.group import Settings, ZooCommand
from zoo.cli.options import json_option, quiet_option
from zoo.cli.output import print_json, print_table
from zoo.terminal import Progress

if TYPE_CHECKING:
    from zoo.models.fetching import Fetched


def _describe(item: Fetched) -> dict[str, Any]:
    """Return a result with the keys of `zoo fetch --json`."""
    known = {"backbone": item.backbone, "weights": item.weights}
    if item.error:
        return {**known, "error": str(item.error)}
    file = {"path": str(item.path), "bytes": item.bytes, "sha256": item.sha256}
    return {**known, **file, "status": item.status}


@click.command(cls=ZooCommand, name="fetch")
@click.argument(
    "names", nargs=-1, required=True, metavar="NAME...", shell_complete=complete_backbone
)
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    help="Folder of the files; created if needed.",
)
@click.option(
    "--weights",
    metavar="TAG",
    shell_complete=complete_tag,
    help="Published weights. [default: those of auto]",
)
@json_option
@quiet_option
@click.pass_obj
def command(
    settings: Settings,
    names: tuple[str, ...],
    folder: Path,
    weights: str | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Fetch the published weights of backbones into a folder.

    NAME is an id, a bare name, an alias, or a publisher's name of weights (timm/resnet18.a1_in1k).
    On a machine without a network, set ZOO_WEIGHTS_DIR to a copy of the folder. Files that are
    there are verified and not fetched again; a download that broke off is resumed.
    """
    from zoo.models.fetching import check_fetched, fetch_all, select_weights

    selected = select_weights(names, weights, settings.registry())
    settings.interruption = "a download that broke off is resumed by the same command"
    progress = Progress(quiet)
    items: list[Fetched] = []
    for item in fetch_all(selected, folder):
        items.append(item)
        if not item.error:
            progress.notice(f"{item.backbone} {item.weights}: {item.status}")
    if as_json:
        print_json([_describe(item) for item in items])
    elif rows := [
        [item.backbone, item.weights, item.status, f"{item.bytes:,}", str(item.path)]
        for item in items
        if not item.error
    ]:
        print_table(["BACKBONE", "WEIGHTS", "STATUS", "BYTES", "FILE"], rows, right="BYTES")
    check_fetched(items)
