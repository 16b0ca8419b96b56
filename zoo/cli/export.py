"""`zoo export`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from zoo.cli.complete import complete_format, complete_model
from zoo.cli.group import ComputingCommand, Settings
from zoo.cli.options import json_option, out_option, weights_option
from zoo.cli.output import print_json, print_line
from zoo.errors import counted

if TYPE_CHECKING:
    from pathlib import Path


@click.command(cls=ComputingCommand, name="export", needs="zoo.inference.loading")
@click.argument("model", shell_complete=complete_model)
@click.option(
    "--format",
    default="onnx",
    show_default=True,
    metavar="NAME",
    help="Format: onnx, timm, openvino, pt2, or one of a plugin.",
    shell_complete=complete_format,
)
@out_option("PATH", "The file or folder to write. [default: beside the model file]")
@weights_option
@json_option
@click.pass_obj
def command(
    settings: Settings,
    model: str,
    format: str,
    out: Path | None,
    weights: str | None,
    as_json: bool,
) -> None:
    """Export MODEL to a file that other programs run.

    MODEL is a run folder, a model file, or the name of a registered model or of a backbone. What is
    written is compared with the network on real images first; if they differ, nothing is left.
    """
    from zoo.inference.export.export import export

    result = export(model, format, settings.registry(), out, weights)
    print_json(result) if as_json else _print(result)


def _print(result: dict[str, Any]) -> None:
    agreement = result["agreement"]
    print_line(f"export  {result['path']}, {result['bytes'] / 1e6:,.1f} MB")
    for line in result["notes"]:
        print_line(f"{'':<8}{line}")
    compared = f"compared on {counted(agreement['images'], 'image')}"
    equal = agreement["equal_decisions"]
    shares = [] if equal is None else [f"{100 * equal:.4g} % equal {agreement['decision']}"]
    difference = f"largest difference {agreement['largest_difference']:.2g}"
    print_line(f"check   {', '.join([compared, *shares, difference])}")
