"""`zoo list`."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from zoo.cli.complete import complete_backbone, complete_source, complete_task
from zoo.cli.group import Settings, ZooCommand
from zoo.cli.options import json_option
from zoo.cli.output import (
    garbage_collection_disabled,
    natural_key,
    print_json,
    print_table,
    short_count,
)
from zoo.errors import UsageError, counted, nearest
from zoo.spec import Backbone
from zoo.terminal import print_notice

if TYPE_CHECKING:
    from zoo.registry.own_models import OwnModel
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


def _sort(backbones: list[Backbone], key: str | None) -> list[Backbone]:
    if key is None:
        return backbones
    if key == "params":
        return sorted(
            backbones, key=lambda b: (b.params is None, b.params or 0, natural_key(b.name))
        )
    if key == "license":
        return sorted(backbones, key=lambda b: (b.license or "~", natural_key(b.id)))
    return sorted(backbones, key=lambda b: natural_key(b.id if key == "id" else b.name))


def _hint(
    registry: Registry, patterns: tuple[str, ...], unlicensed: list[Backbone], license: str
) -> str:
    """Suggest licences if only `--license` excludes every match, names otherwise.

    Args:
        registry: source of the names.
        patterns: arguments of the command.
        unlicensed: backbones that match all other options.
        license: value of `--license`.
    """
    licenses = Counter(b.license or "unknown" for b in unlicensed if b.weights)
    if licenses:
        near = nearest(license, list(licenses))
        common = ", ".join(text for text, _ in licenses.most_common(4))
        return f"; did you mean {', '.join(near)}?" if near else f"; licences of these: {common}"
    if unlicensed:
        return "; these have no published weights, hence no licence"
    near = tuple(name for pattern in patterns for name in registry.suggest(pattern.strip("*")))
    return f"; did you mean {', '.join(near)}?" if near else ""


def _refuse_filters(*values: object) -> None:
    """Check that no option for backbones is given beside `--mine`.

    Raises:
        UsageError: one is.
    """
    if any(value is not None for value in values):
        raise UsageError("--mine lists models by name", "give patterns of names only")


def _list_own(patterns: tuple[str, ...], as_json: bool) -> None:
    from fnmatch import fnmatchcase

    from zoo.registry.own_models import list_own_models

    models = [
        model
        for model in list_own_models()
        if not patterns or any(fnmatchcase(model.name, pattern) for pattern in patterns)
    ]
    if as_json:
        print_json([asdict(model) for model in models])
        return
    if not models:
        what = "no registered model matches" if patterns else "no model is registered"
        print_notice(f"zoo: {what}; `zoo register NAME RUN` adds one")
        return
    header = ["NAME", "BACKBONE", "CLASSES", "METRICS", "REGISTERED", "PATH"]
    print_table(header, [_own_row(model) for model in models], right="CLASSES")


def _own_row(model: OwnModel) -> list[str]:
    """Return the row of a registered model, with two metrics of its last split beside the loss."""
    split, values = next(reversed([*model.metrics.items()]), ("", {}))
    shown = [(name, value) for name, value in values.items() if name != "loss"][:2]
    numbers = " ".join(f"{name} {value:.4f}" for name, value in shown)
    metrics = f"{split} {numbers}" if numbers else ""
    classes = str(len(model.classes)) if model.classes else ""
    return [model.name, model.backbone, classes, metrics, model.registered[:10], model.path]


@click.command(cls=ZooCommand, name="list")
@click.argument("patterns", nargs=-1, shell_complete=complete_backbone, metavar="[PATTERN]...")
@click.option(
    "--source",
    metavar="NAME",
    shell_complete=complete_source,
    help="Only backbones of this source.",
)
@click.option(
    "--task", metavar="TASK", shell_complete=complete_task, help="Only backbones for this task."
)
@click.option(
    "--pretrained/--no-pretrained", default=None, help="Only with, or without, published weights."
)
@click.option(
    "--license",
    metavar="KIND",
    help="Only backbones whose default weights have this licence (apache-2.0, cc-by-*), or one of "
    "this kind: permissive, copyleft, non-commercial, custom, unknown. Backbones without weights "
    "never match.",
)
@click.option("--mine", is_flag=True, help="Models that `zoo register` named, instead.")
@click.option("--sort", type=click.Choice(SORTS), help="Sort key. [default: by source]")
@json_option
@click.pass_obj
@garbage_collection_disabled()
def command(
    settings: Settings,
    patterns: tuple[str, ...],
    source: str | None,
    task: str | None,
    pretrained: bool | None,
    license: str | None,
    mine: bool,
    sort: str | None,
    as_json: bool,
) -> None:
    """List backbones.

    A PATTERN is shell-style and matches the id (timm/resnet18) or the name (resnet18). With several
    patterns, a backbone must match one of them.
    """
    if mine:
        _refuse_filters(source, task, pretrained, license, sort)
        _list_own(patterns, as_json)
        return
    registry = settings.registry()
    find = partial(registry.find, patterns, source=source, task=task, pretrained=pretrained)
    backbones = _sort(find(license=license), sort)
    if as_json:
        print_json([describe(backbone) for backbone in backbones])
        return
    if not backbones:
        unlicensed = find() if license else []
        print_notice(
            f"zoo: no backbone matches{_hint(registry, patterns, unlicensed, license or '')}"
        )
        return
    rows = [
        [
            backbone.id,
            short_count(backbone.params),
            str(len(backbone.weights) or "-"),
            backbone.license or "?",
            "cannot be fine-tuned" if backbone.refuse else "",
        ]
        for backbone in backbones
    ]
    print_table(["ID", "PARAMS", "WEIGHTS", "LICENSE", ""], rows, right="PARAMS WEIGHTS")
    print_notice(f"zoo: {len(backbones):,} of {counted(len(registry), 'backbone')}")
