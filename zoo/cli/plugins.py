"""`zoo plugins`, and the table of its subcommands."""

from __future__ import annotations

from typing import Any

import click

from zoo.cli.group import CommandEntry, Settings, ZooGroup
from zoo.cli.options import json_option
from zoo.cli.output import garbage_collection_disabled, print_json, print_table
from zoo.errors import UsageError
from zoo.registry.plugins import PluginRecord

COMMANDS = (
    CommandEntry(
        "show",
        "zoo.cli.plugins_show",
        "Show the state of a plugin, with its traceback if it failed.",
    ),
    CommandEntry(
        "new", "zoo.cli.plugins_new", "Create a plugin package with a network and its tests."
    ),
    CommandEntry(
        "check",
        "zoo.cli.plugins_check",
        "Run the conformance checks on a plugin.",
    ),
)


def describe(record: PluginRecord, count: int) -> dict[str, Any]:
    """Return a plugin with the keys of `zoo plugins --json`.

    Args:
        record: of the plugin.
        count: number of its backbones.
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
@json_option
@click.pass_context
@garbage_collection_disabled()
def command(context: click.Context, as_json: bool) -> None:
    """List built-in and installed plugins with their status."""
    if context.invoked_subcommand is not None:
        if as_json:
            corrected = f"{context.command_path} {context.invoked_subcommand} --json"
            raise UsageError("--json must follow the subcommand", f"write `{corrected}`")
        return
    registry = context.ensure_object(Settings).registry()
    # Counting reads the catalogues, which can change the status of a plugin.
    registry.records()
    items = [describe(record, count) for record, count in registry.records()]
    if as_json:
        print_json(items)
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
        for item in items
    ]
    header = ["NAME", "PACKAGE", "STATUS", "BACKBONES", "SECONDS", "TASKS", "ERROR"]
    print_table(header, rows, right="BACKBONES SECONDS")
