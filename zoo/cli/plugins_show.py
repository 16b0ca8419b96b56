"""`zoo plugins show`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click

from zoo.cli.complete import complete_plugin
from zoo.cli.group import Settings, ZooCommand
from zoo.cli.options import json_option
from zoo.cli.output import print_json, print_line
from zoo.cli.plugins import describe
from zoo.errors import UsageError, did_you_mean
from zoo.registry.plugins import CONFLICT, PluginRecord
from zoo.registry.registry import Registry
from zoo.spec import AddedWeights, PluginOption, WeightFile

MAX_NAMES = 6
BOUNDS = (("minimum", "at least"), ("maximum", "at most"))


def find_records(registry: Registry, name: str) -> list[PluginRecord]:
    """Return the record of a plugin, followed by those of plugins in conflict with its name.

    Raises:
        UsageError: no plugin has the name; the hint suggests the nearest.
    """
    if name in registry.sources:
        registry.sources[name].names()  # reading its catalogue can change its status
    records = [record for record in registry.host.records if record.name == name]
    if not records:
        known = list(dict.fromkeys(record.name for record in registry.host.records))
        hint = did_you_mean(name, known, f"there are {', '.join(known)}")
        raise UsageError(f"no plugin is named {name!r}", hint)
    return records


def describe_plugin(registry: Registry, record: PluginRecord) -> dict[str, Any]:
    """Return a plugin with the keys of `zoo plugins show --json`, except `conflicts`."""
    is_source = record.status != CONFLICT and record.name in registry.sources
    names = list(registry.sources[record.name].names()) if is_source else []
    return {
        **describe(record, len(names)),
        "module": record.module,
        "file": str(record.file) if record.file else None,
        "hooks": list(record.hooks),
        "names": names,
        "weights": [describe_weights(item) for item in record.weights],
        "options": [describe_option(option) for option in record.options],
        "traceback": record.trace,
    }


def describe_weights(item: WeightFile | AddedWeights) -> dict[str, Any]:
    """Return weights that a plugin provides for backbones of others, as plain data."""
    if isinstance(item, WeightFile):
        return {"backbone": None, "tag": None, "file": item.file, "sha256": item.sha256}
    weights = item.weights
    from_ = weights.file or weights.url or f"hub:{weights.hub}"
    return {
        "backbone": item.backbone,
        "tag": weights.tag,
        "file": from_,
        "sha256": weights.digest,
    }


def describe_option(option: PluginOption) -> dict[str, Any]:
    """Return an option of a plugin as plain data."""
    return {
        "name": option.name,
        "default": option.default,
        "help": option.help,
        "choices": list(option.choices),
        "minimum": option.minimum,
        "maximum": option.maximum,
        "variable": option.variable,
    }


def _abbreviate(names: Sequence[str], source: str) -> str:
    if len(names) <= MAX_NAMES:
        return ", ".join(names)
    more = f"and {len(names) - MAX_NAMES:,} more: `zoo list --source {source}`"
    return f"{', '.join(names[:MAX_NAMES])}, {more}"


def _weights_text(item: dict[str, Any]) -> str:
    owner = f"{item['tag']} of {item['backbone']}, " if item["backbone"] else ""
    return f"{owner}{item['file']}"


def _option_text(option: dict[str, Any]) -> str:
    """Return default, range and environment variable of an option."""
    bounds = [f"{text} {option[name]:g}" for name, text in BOUNDS if option[name] is not None]
    choices = [f"one of {', '.join(map(str, option['choices']))}"] if option["choices"] else []
    default = f"default: {json.dumps(option['default'])}"
    return "; ".join([default, *choices, *bounds, f"env: {option['variable']}"])


def _print(item: dict[str, Any]) -> None:
    facts = {
        "name": item["name"],
        "package": f"{item['distribution']} {item['version']}",
        "module": item["module"],
        "file": item["file"],
        "status": item["status"],
        "error": item["error"],
        "hooks": ", ".join(item["hooks"]) or "none known",
        "backbones": f"{item['backbones']:,}",
        "tasks": ", ".join(item["tasks"]) or None,
        "weights": "; ".join(map(_weights_text, item["weights"])) or None,
        "seconds": f"{item['seconds']:.3f}",
    }
    if item["names"]:
        facts["backbones"] += f": {_abbreviate(item['names'], item['name'])}"
    for key, value in facts.items():
        if value is not None:
            print_line(f"{key:<12}{value}")
    for option in item["options"]:
        print_line(f"{'option':<12}{option['name']}, {option['help']}  [{_option_text(option)}]")
    if item["traceback"]:
        print_line()
        for line in item["traceback"].splitlines():
            print_line(line)


@click.command(cls=ZooCommand, name="show")
@click.argument("name", shell_complete=complete_plugin)
@json_option
@click.pass_obj
def command(settings: Settings, name: str, as_json: bool) -> None:
    """Show the plugin NAME: package, status, hooks, backbones, options, traceback if it failed.

    Plugins that were skipped because they have the same name are shown after it.
    """
    registry = settings.registry()
    first, *others = (describe_plugin(registry, r) for r in find_records(registry, name))
    if as_json:
        print_json({**first, "conflicts": others})
        return
    _print(first)
    for other in others:
        print_line()
        _print(other)
