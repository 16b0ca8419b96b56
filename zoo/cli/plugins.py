"""`zoo plugins`."""

from __future__ import annotations

import click

from zoo.cli.group import Settings, ZooCommand
from zoo.cli.output import print_json, print_table


@click.command(cls=ZooCommand, name="plugins")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(settings: Settings, as_json: bool) -> None:
    """List plugins, built-in and installed, and what happened to each."""
    registry = settings.registry()
    # Counting reads the catalogues, which can itself change a plugin's status.
    registry.records()
    described = [
        {
            "name": record.name,
            "version": record.version,
            "status": record.status,
            "backbones": count,
            "error": record.error,
            "seconds": round(record.seconds, 4),
            "distribution": record.distribution,
        }
        for record, count in registry.records()
    ]
    if as_json:
        print_json(described)
        return
    rows = [
        [
            str(item["name"]),
            f"{item['distribution']} {item['version']}",
            str(item["status"]),
            f"{item['backbones']:,}",
            f"{item['seconds']:.3f}",
            str(item["error"] or ""),
        ]
        for item in described
    ]
    header = ["NAME", "PACKAGE", "STATUS", "BACKBONES", "SECONDS", "ERROR"]
    print_table(header, rows, right="BACKBONES SECONDS")
