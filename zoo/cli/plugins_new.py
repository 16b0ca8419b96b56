"""`zoo plugins new`."""

from __future__ import annotations

from pathlib import Path

import click

from zoo.cli.group import Settings, ZooCommand
from zoo.cli.options import out_option
from zoo.cli.output import print_line
from zoo.testing.plugin_package import derive_names, write_package


@click.command(cls=ZooCommand, name="new")
@click.argument("name")
@out_option("DIR", "Folder of the package. [default: zoo-NAME]")
@click.option(
    "--observer",
    is_flag=True,
    help="A plugin that observes trainings, with an option, instead of one with a network.",
)
@click.pass_obj
def command(settings: Settings, name: str, out: Path | None, observer: bool) -> None:
    """Create a plugin package NAME with a small network that can be trained, and its tests.

    NAME consists of letters, digits, - and _, and becomes the source in the ids of its backbones.
    """
    from shlex import quote

    names = derive_names(name)
    for path in write_package(names, settings.registry(), out, observer):
        print_line(f"wrote {path}")
    folder = quote(str(out or names["distribution"]))
    print_line()
    for step, line in (
        ("install", f"pip install -e {folder} pytest"),
        ("test", f"pytest {folder}"),
        ("use", f"zoo finetune {'resnet18' if observer else names['backbone']} --epochs 1"),
    ):
        print_line(f"{step:<8}{line}")
