"""Descriptions as plain data for JSON, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from zoo.records import recall
from zoo.spec import Backbone, Head, Preprocess, Weights


def _plain(value: Any) -> Any:
    if isinstance(value, (Head, Preprocess, Weights, Backbone)):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def to_dict(spec: Head | Preprocess | Weights | Backbone) -> dict[str, Any]:
    """Return a description as plain data for JSON, fields at their default left out."""
    plain = {}
    for item in fields(spec):
        value = getattr(spec, item.name)
        if value != item.default and not (isinstance(value, Mapping) and not value):
            plain[item.name] = _plain(value)
    return plain


def preprocess_from_dict(plain: Mapping[str, Any]) -> Preprocess:
    """Read back what `to_dict` gave for a `Preprocess`."""
    values: dict[str, Any] = {
        key: tuple(item) if isinstance(item, list) else item for key, item in plain.items()
    }
    return Preprocess(**values)


def recall_backbone(plain: Mapping[str, Any], **owner: str) -> Backbone:
    """Read back a `Backbone` that was checked when it was written, as a catalogue's are.

    Every `zoo list` reads thousands of them, and checking takes longer than all the rest of it.

    Args:
        plain: what `to_dict` gave.
        owner: `source`, `plugin` and `origin`.

    Raises:
        KeyError: it is no such description.
    """
    values = {**plain, **owner}
    values["heads"] = tuple(recall(Head, head) for head in plain["heads"])
    values["preprocess"] = recall(Preprocess, plain["preprocess"])
    values["weights"] = tuple(map(_recall_weights, plain.get("weights", ())))
    return recall(Backbone, values)


def _recall_weights(plain: Mapping[str, Any]) -> Weights:
    values = dict(plain)
    if values.get("preprocess"):
        values["preprocess"] = recall(Preprocess, values["preprocess"])
    return recall(Weights, values)
