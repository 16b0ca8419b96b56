"""The class names of published weights."""

from __future__ import annotations

from zoo.errors import UsageError
from zoo.models.plugin_errors import plugin_errors
from zoo.spec import Backbone, Weights, resolve_target


def published_classes(backbone: Backbone, weights: Weights) -> tuple[str, ...]:
    """Return the class names that published weights predict.

    Raises:
        UsageError: they have no head or no class names, or the adapter names another number.
        BrokenPlugin: the function that returns the class names fails.
    """
    hint = f"`zoo finetune {backbone.id}` gives it a head of your own"
    if weights.features_only or not weights.num_classes or not backbone.heads:
        raise UsageError(f"{backbone.id} {weights.tag} is published without a head", hint)
    names = weights.classes
    if isinstance(names, str):
        source = resolve_target(names, f"weights {weights.tag!r} of {backbone.id}")
        with plugin_errors(f"{names}, the classes of {backbone.id}, cannot be read"):
            names = tuple(str(name) for name in (source() if callable(source) else source))
    if names is None:
        raise UsageError(f"{backbone.id} {weights.tag} is published without names of classes", hint)
    if len(names) != weights.num_classes:
        message = f"{backbone.id} {weights.tag} has {weights.num_classes} classes"
        raise UsageError(f"{message}, but its adapter names {len(names)}")
    return tuple(names)
