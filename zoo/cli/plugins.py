"""`zoo plugins`, and the commands that stand behind it."""

from __future__ import annotations

from typing import Any

import click

from zoo.cli.group import Entry, Settings, ZooGroup
from zoo.cli.output import print_json, print_table, without_collecting
from zoo.errors import UsageError
from zoo.registry.plugins import PluginRecord

COMMANDS = (
    Entry("show", "zoo.cli.plugins_show", "Show all that is known about a plugin."),
    Entry("new", "zoo.cli.plugins_new", "Write a plugin package that works at once."),
    Entry("check", "zoo.cli.plugins_check", "Hold a plugin's backbones against zoo's promises."),
)


def describe(record: PluginRecord, count: int) -> dict[str, Any]:
    """Return a plugin with the keys of `zoo plugins --json`.

    Args:
        record: what is known about it.
        count: how many backbones it brings.
    """
    return {
        "name": record.name,
        "version": record.version,
        "status": record.status,
        "backbones": count,
        "error": record.error,
        "seconds": round(record.seconds, 4),
        "distribution": record.distribution,
        "tasks": [task.name for task in record.tasks],
    }


@click.command(
    cls=ZooGroup,
    name="plugins",
    table=COMMANDS,
    invoke_without_command=True,
    subcommand_metavar="[COMMAND] [ARGS]...",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
@without_collecting()
def command(context: click.Context, as_json: bool) -> None:
    """List plugins, built-in and installed, and what happened to each."""
    if context.invoked_subcommand is not None:
        if as_json:
            after = f"{context.command_path} {context.invoked_subcommand} --json"
            raise UsageError("--json stands before a command of plugins", f"write `{after}`")
        return
    registry = context.ensure_object(Settings).registry()
    # Counting reads the catalogues, which can itself change a plugin's status.
    registry.records()
    described = [describe(record, count) for record, count in registry.records()]
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
            ", ".join(item["tasks"]),
            str(item["error"] or ""),
        ]
        for item in described
    ]
    header = ["NAME", "PACKAGE", "STATUS", "BACKBONES", "SECONDS", "TASKS", "ERROR"]
    print_table(header, rows, right="BACKBONES SECONDS")
