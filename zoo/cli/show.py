"""`zoo show`."""

from __future__ import annotations

from typing import Any

import click

from zoo.cli.complete import complete_backbone
from zoo.cli.group import Settings, ZooCommand
from zoo.cli.list import describe
from zoo.cli.options import json_option
from zoo.cli.output import (
    garbage_collection_disabled,
    print_json,
    print_line,
    print_table,
    short_count,
)
from zoo.errors import counted
from zoo.models.weight_sources import locate
from zoo.registry.licenses import classify, in_words
from zoo.spec import Backbone, Preprocess, Weights
from zoo.terminal import percent


def _describe_weights(backbone: Backbone, weights: Weights) -> dict[str, Any]:
    preprocess, location = backbone.preprocess_for(weights), locate(backbone, weights)
    return {
        "tag": weights.tag,
        "default": weights is backbone.weights[0],
        "from": weights.file or weights.url or f"hub:{weights.hub}",
        "availability": location.kind,
        "path": str(location.path) if location.path else None,
        "sha256": weights.digest,
        "license": weights.license,
        "license_kind": classify(weights.license),
        "num_classes": weights.num_classes,
        "metrics": dict(weights.metrics),
        "preprocess": _describe_preprocess(preprocess),
    }


def _describe_preprocess(preprocess: Preprocess) -> dict[str, Any]:
    return {
        "size": [preprocess.height, preprocess.width],
        "resize": preprocess.resize,
        "crop": preprocess.crop,
        "interpolation": preprocess.interpolation,
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
    }


def describe_backbone(backbone: Backbone) -> dict[str, Any]:
    """Return a backbone with the keys of `zoo show --json`."""
    return {
        **describe(backbone),
        "heads": [
            {
                "path": head.path,
                "role": head.role,
                "loss_weight": head.loss_weight,
                "in_features": head.in_features,
            }
            for head in backbone.heads
        ],
        "preprocess": _describe_preprocess(backbone.preprocess),
        "weights": [_describe_weights(backbone, weights) for weights in backbone.weights],
        "min_size": backbone.min_size,
        "fixed_size": backbone.fixed_size,
        "origin": backbone.origin,
        "exceptions": dict(backbone.exceptions),
    }


def _preprocess_text(preprocess: Preprocess) -> str:
    size = f"{preprocess.height}x{preprocess.width}"
    resize = "" if preprocess.crop == "squash" else f" of {preprocess.resize}"
    return f"{size} {preprocess.crop}{resize}, {preprocess.interpolation}"


def _head_text(backbone: Backbone) -> str:
    parts = []
    for head in backbone.heads:
        role = "" if head.role == "main" else f" ({head.role}, loss weight {head.loss_weight:g})"
        width = f" of {counted(head.in_features, 'feature')}" if head.in_features else ""
        parts.append(f"{head.path}{role}{width}")
    return ", ".join(parts) or "none"


@click.command(cls=ZooCommand, name="show")
@click.argument("name", shell_complete=complete_backbone)
@json_option
@click.pass_obj
@garbage_collection_disabled()
def command(settings: Settings, name: str, as_json: bool) -> None:
    """Show a backbone: heads, preprocess, weights with licences and where they come from.

    NAME is an id (timm/resnet18), a bare name, an alias, or a publisher's name of weights
    (timm/resnet18.a1_in1k, ResNet50_Weights.DEFAULT).
    """
    backbone = settings.registry().get(name)
    if as_json:
        print_json(describe_backbone(backbone))
        return
    size = f"{backbone.params:,}" if backbone.params else "?"
    facts = {
        "id": backbone.id,
        "from": backbone.origin,
        "task": backbone.task,
        "heads": _head_text(backbone),
        "parameters": f"{size} ({short_count(backbone.params)})" if backbone.params else "?",
        "preprocess": _preprocess_text(
            backbone.preprocess_for(backbone.weights[0] if backbone.weights else None)
        ),
        "license": in_words(backbone.license),
    }
    if backbone.refuse:
        facts["fine-tuning"] = f"refused: {backbone.refuse}"
    for key, value in facts.items():
        print_line(f"{key:<12}{value}")
    for check, reason in backbone.exceptions.items():
        print_line(f"{'exception':<12}{check}: {reason}")
    if not backbone.weights:
        print_line(f"{'weights':<12}none published")
        return
    print_line()
    rows = [
        [
            weights.tag + (" (default)" if weights is backbone.weights[0] else ""),
            str(weights.num_classes or "-"),
            percent(next((v for k, v in weights.metrics.items() if "top1" in k), None)),
            _preprocess_text(backbone.preprocess_for(weights)),
            locate(backbone, weights).text,
            in_words(weights.license),
        ]
        for weights in backbone.weights
    ]
    print_table(
        ["WEIGHTS", "CLASSES", "TOP-1", "PREPROCESS", "LOCATION", "LICENSE"], rows, "CLASSES TOP-1"
    )
