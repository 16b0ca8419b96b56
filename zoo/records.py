"""Dataclasses whose fields hold what their annotations say, and stay as they are.

What a plugin registers is shared by the whole process, so nobody may change it, and what a plugin
got wrong must be said where it registers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, fields
from functools import cache
from types import UnionType
from typing import Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from zoo.errors import UsageError

Described = TypeVar("Described")


def _refuse_change(self: Any, *_: Any, **__: Any) -> Any:
    raise TypeError("what a plugin registered cannot be changed; make a copy with dict() or list()")


_REFUSE: Any = _refuse_change
_set = object.__setattr__


class FrozenDict(dict[str, Any]):
    """A mapping that stays as it is, and is otherwise a dict: for JSON, `**` and pickle."""

    __setitem__ = __delitem__ = __ior__ = _REFUSE
    clear = pop = popitem = setdefault = update = _REFUSE

    def __reduce__(self) -> Any:
        return type(self), (dict(self),)


class FrozenList(list[Any]):
    """A list inside a `FrozenDict`; a list still, since a builder may tell it from a tuple."""

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _REFUSE
    append = clear = extend = insert = pop = remove = reverse = sort = _REFUSE

    def __reduce__(self) -> Any:
        return type(self), (list(self),)


def _frozen(value: Any) -> Any:
    """Return a JSON value so that nobody can change it.

    Raises:
        TypeError: JSON cannot carry it.
    """
    if value is None or isinstance(value, (str, int, FrozenDict, FrozenList)):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value
    if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
        return FrozenDict({key: _frozen(item) for key, item in value.items()})
    if isinstance(value, list):
        return FrozenList(_frozen(item) for item in value)
    if isinstance(value, tuple):
        return tuple(_frozen(item) for item in value)
    raise TypeError(f"JSON cannot carry {value!r}")


class _Rule(NamedTuple):
    """What a field may hold.

    Args:
        name: of the field.
        default: what it holds where nothing is said.
        said: its annotation.
        plain: types whose values need no second look.
        kinds: every type that it may have.
        elements: the types of what is inside, for tuples and mappings.
    """

    name: str
    default: Any
    said: str
    plain: frozenset[type]
    kinds: tuple[type, ...]
    elements: tuple[type, ...]


@cache
def _rules(cls: type) -> tuple[_Rule, ...]:
    """Return the rules that the annotations of a description state."""
    hints = get_type_hints(cls)
    rules = []
    for item in fields(cls):
        hint = hints[item.name]
        kinds: set[Any] = set()
        elements: set[Any] = set()
        for part in get_args(hint) if isinstance(hint, UnionType) else (hint,):
            origin = get_origin(part)
            kinds |= {FrozenDict} if origin is Mapping else {origin or part}
            if origin is not None:
                element = get_args(part)[1 if origin is Mapping else 0]
                elements |= {object if element is Any else element}
        kinds |= {int} if float in kinds else set()
        elements |= {int} if float in elements else set()
        said = str(item.type) + (" of JSON values" if object in elements else "")
        plain = frozenset(kinds - {float, tuple, FrozenDict})
        rules.append(_Rule(item.name, item.default, said, plain, tuple(kinds), tuple(elements)))
    return tuple(rules)


def _fits(value: Any, kinds: tuple[type, ...]) -> bool:
    if type(value) in kinds and type(value) is not float:
        return True
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        return False
    return not isinstance(value, float) or math.isfinite(value)


def _settled(value: Any, rule: _Rule) -> Any:
    """Return a field's value in its frozen form.

    Raises:
        TypeError: it is nothing that the field may hold.
    """
    kind = type(value)
    if tuple in rule.kinds and kind is not tuple and isinstance(value, (list, Iterator)):
        value = tuple(value)
    elif FrozenDict in rule.kinds and kind is not FrozenDict and isinstance(value, Mapping):
        value = _frozen(value)
    inside: Iterable[Any] = ()
    if isinstance(value, (tuple, FrozenDict)) and object not in rule.elements:
        inside = value.values() if isinstance(value, FrozenDict) else value
    if not _fits(value, rule.kinds) or not all(_fits(item, rule.elements) for item in inside):
        raise TypeError(f"it must be {rule.said}")
    return value


def settle(spec: Any) -> None:
    """Freeze the fields of a description, and refuse what their annotations do not allow.

    A field that a plugin got wrong would otherwise fail far from here, in a command about another
    backbone. Every `zoo list` passes tens of thousands of fields through here, so the usual ones
    are let through by one look at their type.

    Raises:
        UsageError: names the field.
    """
    rules = _rules(type(spec))  # type: ignore[arg-type]  # mypy takes no class for hashable
    for rule in rules:
        given = getattr(spec, rule.name)
        if type(given) in rule.plain or given is rule.default:
            continue
        try:
            settled = _settled(given, rule)
        except TypeError as error:
            owner = f"{type(spec).__name__} {getattr(spec, rules[0].name)!r}"[:80]
            message = f"{owner}: {rule.name} must be {rule.said}, not {given!r}"
            raise UsageError(message[:240]) from error
        if settled is not given:
            object.__setattr__(spec, rule.name, settled)


@cache
def _blank(cls: type) -> tuple[Mapping[str, Any], frozenset[str]]:
    """Return the fields of a class at their defaults, and the names of those that have none."""
    defaults = {
        item.name: FrozenDict() if item.default_factory is FrozenDict else item.default
        for item in fields(cls)
    }
    required = frozenset(name for name, value in defaults.items() if value is MISSING)
    return defaults, required


def recall(cls: type[Described], values: Mapping[str, Any]) -> Described:
    """Make a description of values that one had, without checking them again.

    Args:
        cls: whose fields they are.
        values: by field, of JSON's types; those at their default may be missing.

    Raises:
        KeyError: a field without a default is missing.
    """
    defaults, required = _blank(cls)  # type: ignore[arg-type]  # as in `settle`
    if not required <= values.keys():
        raise KeyError(min(required - values.keys()))
    filled = {**defaults, **values}
    for name, value in values.items():
        kind = type(value)
        if kind is dict:
            filled[name] = _frozen(value)
        elif kind is list:
            filled[name] = tuple(value)
    made = object.__new__(cls)
    if "__slots__" in cls.__dict__:
        for name, value in filled.items():
            _set(made, name, value)
    else:
        made.__dict__.update(filled)
    return made
