"""`zoo list`."""

from __future__ import annotations

from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from zoo.cli.group import Settings, ZooCommand
from zoo.cli.output import natural_key, print_json, print_table, short_count, without_collecting
from zoo.errors import nearest
from zoo.spec import Backbone
from zoo.terminal import say

if TYPE_CHECKING:
    from zoo.registry.registry import Registry

SORTS = ("id", "name", "params", "license")


def describe(backbone: Backbone) -> dict[str, Any]:
    """Return a backbone with the keys of `zoo list --json`."""
    return {
        "id": backbone.id,
        "name": backbone.name,
        "source": backbone.source,
        "plugin": backbone.plugin,
        "task": backbone.task,
        "heads": [head.path for head in backbone.heads],
        "params": backbone.params,
        "pretrained": backbone.pretrained,
        "license": backbone.license,
        "refused": backbone.refuse,
    }


def _sort(found: list[Backbone], key: str | None) -> list[Backbone]:
    if key is None:
        return found
    if key == "params":
        return sorted(found, key=lambda b: (b.params is None, b.params or 0, natural_key(b.name)))
    if key == "license":
        return sorted(found, key=lambda b: (b.license or "~", natural_key(b.id)))
    return sorted(found, key=lambda b: natural_key(b.id if key == "id" else b.name))


def _hint(
    registry: Registry, patterns: tuple[str, ...], others: list[Backbone], license: str
) -> str:
    """Name what there is instead: licences where only the licence is in the way, else names."""
    held = Counter(b.license or "unknown" for b in others if b.weights)
    if held:
        near = nearest(license, list(held))
        most = ", ".join(text for text, _ in held.most_common(4))
        return f"; did you mean {', '.join(near)}?" if near else f"; licences there: {most}"
    if others:
        return "; no weights are published for them, so there is nothing to license"
    near = tuple(name for pattern in patterns for name in registry.suggest(pattern.strip("*")))
    return f"; did you mean {', '.join(near)}?" if near else ""


@click.command(cls=ZooCommand, name="list")
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...")
@click.option("--source", metavar="NAME", help="Only those of this plugin.")
@click.option("--task", metavar="TASK", help="Only those for this task.")
@click.option("--pretrained/--no-pretrained", default=None, help="With, or without, weights.")
@click.option(
    "--license",
    metavar="KIND",
    help="Only those whose default weights are permissive, copyleft, non-commercial, custom or "
    "unknown, or have this licence: apache-2.0, cc-by-*. Without weights, none matches.",
)
@click.option("--sort", type=click.Choice(SORTS), help="By default plugin by plugin.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
@without_collecting()
def command(
    settings: Settings,
    patterns: tuple[str, ...],
    source: str | None,
    task: str | None,
    pretrained: bool | None,
    license: str | None,
    sort: str | None,
    as_json: bool,
) -> None:
    """List backbones.

    A PATTERN has shell-style wildcards and matches the id (timm/resnet18) or the name (resnet18);
    with several, any of them.
    """
    registry = settings.registry()
    find = partial(registry.find, patterns, source=source, task=task, pretrained=pretrained)
    found = _sort(find(license=license), sort)
    if as_json:
        print_json([describe(backbone) for backbone in found])
        return
    if not found:
        others = find() if license else []
        say(f"zoo: nothing matches{_hint(registry, patterns, others, license or '')}")
        return
    rows = [
        [
            backbone.id,
            short_count(backbone.params),
            str(len(backbone.weights) or "-"),
            backbone.license or "?",
            "cannot be fine-tuned" if backbone.refuse else "",
        ]
        for backbone in found
    ]
    print_table(["ID", "PARAMS", "WEIGHTS", "LICENSE", ""], rows, right="PARAMS WEIGHTS")
    say(f"zoo: {len(found):,} of {len(registry):,} backbones")
