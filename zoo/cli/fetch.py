"""`zoo fetch`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.cli.group import Settings, ZooCommand
from zoo.cli.options import json_option, quiet_option
from zoo.cli.output import print_json, print_table
from zoo.errors import UsageError, WeightsError, ZooError
from zoo.terminal import Progress

if TYPE_CHECKING:
    from zoo.spec import Backbone, Weights


def _select(
    settings: Settings, names: tuple[str, ...], tag: str | None
) -> list[tuple[Backbone, Weights]]:
    """Return each backbone with the weights to fetch.

    Raises:
        ZooError: a name or tag is unknown, or nothing is published; all such names together.
    """
    selected: list[tuple[Backbone, Weights]] = []
    faults: list[ZooError] = []
    for name in dict.fromkeys(names):
        try:
            backbone = settings.registry().get(name)
            if not backbone.weights:
                raise UsageError(f"{backbone.id} has no published weights")
            weights = backbone.find_weights(tag) if tag else backbone.weights[0]
            selected.append((backbone, weights))
        except UsageError as error:
            faults.append(error)
    if len(faults) == 1:
        raise faults[0]
    if faults:
        raise UsageError(f"{len(faults)} names are wrong: {'; '.join(map(str, faults))}")
    return selected


@click.command(cls=ZooCommand, name="fetch")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option(
    "--to",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    metavar="DIR",
    help="Folder of the files; created if needed.",
)
@click.option("--weights", metavar="TAG", help="Published weights. [default: those of auto]")
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
    selected = _select(settings, names, weights)
    from zoo.models.weight_folder import put_weights

    settings.interruption = "a download that broke off is resumed by the same command"
    progress = Progress(quiet)
    items: list[dict[str, Any]] = []
    errors: list[WeightsError] = []
    for backbone, published in selected:
        item: dict[str, Any] = {"backbone": backbone.id, "weights": published.tag}
        try:
            file = put_weights(backbone, published, folder)
        except WeightsError as error:
            items.append({**item, "error": str(error)})
            errors.append(WeightsError(f"{backbone.id} {published.tag}: {error}"))
            continue
        path = {"path": str(file.path), "bytes": file.size, "sha256": file.sha256}
        items.append({**item, **path, "status": file.status})
        progress.notice(f"{backbone.id} {published.tag}: {file.status}")
    if as_json:
        print_json(items)
    elif rows := [
        [item["backbone"], item["weights"], item["status"], f"{item['bytes']:,}", item["path"]]
        for item in items
        if "path" in item
    ]:
        print_table(["BACKBONE", "WEIGHTS", "STATUS", "BYTES", "FILE"], rows, right="BYTES")
    if errors:
        reasons = "; ".join(map(str, errors))
        raise WeightsError(f"{len(errors)} of {len(items)} not fetched: {reasons}")
