"""Look up backbones."""

from __future__ import annotations

import builtins
from collections.abc import Iterable
from enum import Enum

from zoo.errors import UsageError
from zoo.options.arguments import names_arguments
from zoo.registry.registry import load_registry
from zoo.spec import Backbone


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
        UsageError: no plugin is named as the source, the licence is a misspelt kind, or an argument
            is of another type.
    """
    if isinstance(pattern, str) or not isinstance(pattern, Iterable):
        pattern = [pattern] if pattern else []
    every = tuple(each for each in (*pattern, *patterns) if each)
    for each in (*every, source, task, license):
        if not isinstance(each, str | None):
            raise UsageError(f"{each!r} is a {type(each).__name__}, not text", "give a name")
    if not isinstance(pretrained, bool | None):
        raise UsageError(f"pretrained is {pretrained!r}", "give True, False or None")
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


def described(backbone: str | Enum | Backbone | None) -> Backbone | None:
    """Return the backbone of a network that zoo did not build, as `get` does; None for None."""
    return None if backbone is None else get(backbone)
