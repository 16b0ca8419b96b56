"""`zoo plugins show`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from zoo.cli.group import Settings, ZooCommand
from zoo.cli.output import print_json, print_line
from zoo.cli.plugins import describe
from zoo.errors import UsageError, did_you_mean
from zoo.registry.plugins import CONFLICT, PluginRecord
from zoo.registry.registry import Registry

FEW = 6


def find_records(registry: Registry, name: str) -> list[PluginRecord]:
    """Return what is known about a plugin, and after it about those that wanted its name.

    Raises:
        UsageError: no plugin has the name; names the nearest.
    """
    if name in registry.sources:
        registry.sources[name].names()  # reading its catalogue can change its status
    found = [record for record in registry.host.records if record.name == name]
    if not found:
        known = list(dict.fromkeys(record.name for record in registry.host.records))
        hint = did_you_mean(name, known, f"there are {', '.join(known)}")
        raise UsageError(f"no plugin is named {name!r}", hint)
    return found


def describe_whole(registry: Registry, record: PluginRecord) -> dict[str, Any]:
    """Return a plugin with the keys of `zoo plugins show --json`, but for `conflicts`."""
    holds = record.status != CONFLICT and record.name in registry.sources
    names = list(registry.sources[record.name].names()) if holds else []
    return {
        **describe(record, len(names)),
        "module": record.module,
        "file": str(record.file) if record.file else None,
        "hooks": list(record.hooks),
        "names": names,
        "traceback": record.trace,
    }


def _few(names: Sequence[str], source: str) -> str:
    if len(names) <= FEW:
        return ", ".join(names)
    more = f"and {len(names) - FEW:,} more, which `zoo list --source {source}` shows"
    return f"{', '.join(names[:FEW])}, {more}"


def _print(said: dict[str, Any]) -> None:
    facts = {
        "name": said["name"],
        "package": f"{said['distribution']} {said['version']}",
        "module": said["module"],
        "file": said["file"],
        "status": said["status"],
        "error": said["error"],
        "hooks": ", ".join(said["hooks"]) or "none known",
        "backbones": f"{said['backbones']:,}",
        "tasks": ", ".join(said["tasks"]) or None,
        "seconds": f"{said['seconds']:.3f}",
    }
    if said["names"]:
        facts["backbones"] += f": {_few(said['names'], said['name'])}"
    for key, value in facts.items():
        if value is not None:
            print_line(f"{key:<12}{value}")
    if said["traceback"]:
        print_line()
        for line in said["traceback"].splitlines():
            print_line(line)


@click.command(cls=ZooCommand, name="show")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(settings: Settings, name: str, as_json: bool) -> None:
    """Show all that is known about the plugin NAME, whether it works or not.

    After it come those that were left out because they have the same name.
    """
    registry = settings.registry()
    first, *others = (describe_whole(registry, r) for r in find_records(registry, name))
    if as_json:
        print_json({**first, "conflicts": others})
        return
    _print(first)
    for other in others:
        print_line()
        _print(other)
