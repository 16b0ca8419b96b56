"""The class names of published weights."""

from __future__ import annotations

from zoo.errors import BrokenBackbone, UsageError, counted
from zoo.models.plugin_errors import plugin_errors
from zoo.spec import Backbone, Weights, resolve_target


def published_classes(backbone: Backbone, weights: Weights) -> tuple[str, ...]:
    """Return the class names that published weights predict.

    Raises:
        UsageError: they have no head or no class names.
        BrokenPlugin: the adapter's class names cannot be imported.
        BrokenBackbone: they cannot be read, or are not as many as the outputs.
    """
    hint = f"`zoo finetune {backbone.id}` gives it a head of your own"
    if weights.features_only or not weights.num_classes or not backbone.heads:
        raise UsageError(f"{backbone.id} {weights.tag} is published without a head", hint)
    names = weights.classes
    if isinstance(names, str):
        source = resolve_target(names, f"weights {weights.tag!r} of {backbone.id}")
        with plugin_errors(f"{names}, the classes of {backbone.id}, cannot be read"):
            given = source() if callable(source) else source
            if isinstance(given, (str, bytes)):
                raise TypeError(f"{given!r:.40} is one text, not a sequence of names")
            names = tuple(str(name) for name in given)
    if names is None:
        raise UsageError(f"{backbone.id} {weights.tag} is published without names of classes", hint)
    if len(names) != weights.num_classes:
        message = f"{backbone.id} {weights.tag} has {counted(weights.num_classes, 'class')}"
        remedy = f"correct classes or num_classes in plugin {backbone.plugin or 'of the backbone'}"
        raise BrokenBackbone(f"{message}, but its adapter names {len(names)}", remedy)
    return tuple(names)
