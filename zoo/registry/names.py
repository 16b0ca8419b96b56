"""Names of backbones and models, as Python gives them."""

from __future__ import annotations

from enum import Enum
from os import PathLike, fspath
from typing import TYPE_CHECKING

from zoo.errors import UsageError
from zoo.registry.registry import load_registry
from zoo.spec import Backbone

if TYPE_CHECKING:
    from zoo.options.given import NameOrPath


def name_of(given: NameOrPath | Backbone) -> str:
    """Return the registered name of a backbone, or a name or path as text.

    Raises:
        UsageError: it is none of these, or a backbone that differs from the registered one, so that
            a model file could not name it.
    """
    if isinstance(given, Enum):
        return str(given)
    if isinstance(given, (str, PathLike)):
        return fspath(given)
    if not isinstance(given, Backbone):
        hint = "give text or a path; a loaded model has methods of its own, and zoo.save writes one"
        raise UsageError(f"a {type(given).__name__} is no name, path or backbone", hint)
    hint = "register it: backbone = zoo.register(backbone)"
    if not given.source:
        raise UsageError(f"the backbone {given.id} is not registered", hint)
    name = f"{given.id}.{given.selected}" if given.selected else given.id
    if load_registry().get(name) != given:
        raise UsageError(f"{given.id} differs from the registered backbone", hint)
    return name
