"""Descriptions as plain data for JSON, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import lru_cache
from typing import Any

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


def _hashable(plain: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    return tuple(
        (key, tuple(item) if isinstance(item, list) else item) for key, item in plain.items()
    )


def preprocess_from_dict(plain: Mapping[str, Any]) -> Preprocess:
    """Read back what `to_dict` gave for a `Preprocess`."""
    return Preprocess(**dict(_hashable(plain)))


# A library describes its thousands of weights with a few dozen of these, and checking one costs
# more than finding it again.
@lru_cache(maxsize=4096)
def _known_preprocess(items: tuple[tuple[str, Any], ...]) -> Preprocess:
    return Preprocess(**dict(items))


@lru_cache(maxsize=4096)
def _known_head(items: tuple[tuple[str, Any], ...]) -> Head:
    return Head(**dict(items))


def weights_from_dict(plain: Mapping[str, Any]) -> Weights:
    """Read back what `to_dict` gave for `Weights`."""
    values = dict(plain)
    if values.get("preprocess"):
        values["preprocess"] = _known_preprocess(_hashable(values["preprocess"]))
    return Weights(**values)


def backbone_from_dict(plain: Mapping[str, Any]) -> Backbone:
    """Read back what `to_dict` gave for a `Backbone`."""
    values = dict(plain)
    values["heads"] = tuple(_known_head(_hashable(head)) for head in plain["heads"])
    values["preprocess"] = _known_preprocess(_hashable(plain["preprocess"]))
    values["weights"] = tuple(weights_from_dict(item) for item in plain.get("weights", ()))
    return Backbone(**values)
