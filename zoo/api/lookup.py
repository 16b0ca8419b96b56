"""Look up backbones."""

from __future__ import annotations

import builtins
from collections.abc import Iterable
from enum import Enum
from os import fspath
from typing import TYPE_CHECKING

from zoo.errors import UsageError
from zoo.options.arguments import names_arguments
from zoo.registry.registry import load_registry
from zoo.spec import Backbone

if TYPE_CHECKING:
    from zoo.options.given import NameOrPath


@names_arguments
def list_backbones(
    pattern: str | Iterable[str] | None = None,
    *patterns: str,
    source: str | None = None,
    task: str | None = None,
    pretrained: bool | None = None,
    license: str | None = None,
) -> builtins.list[Backbone]:
    """Return the backbones that match.

    Args:
        pattern: shell-style wildcards on id or name; one of several must match; None for all.
        patterns: further patterns.
        source: name of a plugin.
        task: name of a task.
        pretrained: whether weights are published; None for both.
        license: of the default weights: a kind (`permissive`, `copyleft`, `non-commercial`,
            `custom`, `unknown`) or text (`apache-2.0`, `cc-by-*`).

    Raises:
        UsageError: no plugin is named as the source, or the licence is a misspelt kind.
    """
    first = (pattern,) if isinstance(pattern, str) else pattern or ()
    every = tuple(each for each in (*first, *patterns) if each)
    registry = load_registry()
    return registry.find(every, source=source, task=task, pretrained=pretrained, license=license)


@names_arguments
def get(name: str | Enum | Backbone) -> Backbone:
    """Return the backbone of an id, a bare name, an alias or a name of published weights.

    Args:
        name: as in `list_backbones` or registry.toml; or the publisher's name of weights, such as
            `timm/resnet18.a1_in1k` or `ResNet50_Weights.DEFAULT`, which become the default; or a
            backbone, which is returned.

    Raises:
        UnknownBackbone: none has the name; with suggestions.
    """
    return name if isinstance(name, Backbone) else load_registry().get(str(name))


def name_of(backbone: NameOrPath | Backbone) -> str:
    """Return the registered name of a backbone, or a path as text.

    Raises:
        UsageError: it differs from the registered one, so a model file could not name it.
    """
    if not isinstance(backbone, Backbone):
        return str(backbone) if isinstance(backbone, Enum) else fspath(backbone)
    hint = "register it: backbone = zoo.register(backbone)"
    if not backbone.source:
        raise UsageError(f"the backbone {backbone.id} is not registered", hint)
    name = f"{backbone.id}.{backbone.selected}" if backbone.selected else backbone.id
    if get(name) != backbone:
        raise UsageError(f"{backbone.id} differs from the registered backbone", hint)
    return name
