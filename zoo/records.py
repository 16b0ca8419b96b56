"""Immutable dataclasses that validate their fields by annotation, and their form as plain data.

A description that a plugin registers is shared by the whole process, so it cannot be modified, and
a wrong field is an error where it is registered.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from copy import copy
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from zoo.errors import UsageError

Record = TypeVar("Record")


def _refuse_change(self: Any, *_: Any, **__: Any) -> Any:
    raise TypeError("a registered description cannot be changed; make a copy with dict() or list()")


_REFUSE: Any = _refuse_change
_set = object.__setattr__


class FrozenDict(dict[str, Any]):
    """A mapping that refuses changes; a dict still, for JSON, `**` and pickle."""

    __setitem__ = __delitem__ = __ior__ = _REFUSE
    clear = pop = popitem = setdefault = update = _REFUSE

    def __reduce__(self) -> Any:
        return type(self), (dict(self),)


class FrozenList(list[Any]):
    """A list inside a `FrozenDict`; a builder may distinguish it from a tuple."""

    __setitem__ = __delitem__ = __iadd__ = __imul__ = _REFUSE
    append = clear = extend = insert = pop = remove = reverse = sort = _REFUSE

    def __reduce__(self) -> Any:
        return type(self), (list(self),)


def _frozen(value: Any) -> Any:
    """Return an immutable copy of a JSON value.

    Raises:
        TypeError: it is not JSON serializable.
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
    raise TypeError(f"{value!r} is not JSON serializable")


class _Rule(NamedTuple):
    """The values that a field accepts.

    Args:
        name: of the field.
        default: of the field.
        annotation: as written, for messages.
        exact: types whose values need no further check.
        types: every accepted type.
        elements: the accepted types of elements, for tuples and mappings.
    """

    name: str
    default: Any
    annotation: str
    exact: frozenset[type]
    types: tuple[type, ...]
    elements: tuple[type, ...]


@cache
def _rules(cls: type) -> tuple[_Rule, ...]:
    """Return a rule per field, from the annotations of a class."""
    hints = get_type_hints(cls)
    rules = []
    for item in fields(cls):
        hint = hints[item.name]
        types: set[Any] = set()
        elements: set[Any] = set()
        for part in get_args(hint) if isinstance(hint, UnionType) else (hint,):
            origin = get_origin(part)
            types |= {FrozenDict} if origin is Mapping else {origin or part}
            if origin is not None:
                element = get_args(part)[1 if origin is Mapping else 0]
                elements |= {object if element is Any else element}
        types |= {int} if float in types else set()
        elements |= {int} if float in elements else set()
        annotation = str(item.type) + (" of JSON values" if object in elements else "")
        exact = frozenset(types - {float, tuple, FrozenDict})
        rules.append(
            _Rule(item.name, item.default, annotation, exact, tuple(types), tuple(elements))
        )
    return tuple(rules)


def _matches(value: Any, types: tuple[type, ...]) -> bool:
    if type(value) in types and type(value) is not float:
        return True
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        return False
    return not isinstance(value, float) or math.isfinite(value)


def _validated(value: Any, rule: _Rule) -> Any:
    """Return a field's value, immutable.

    Raises:
        TypeError: the rule does not accept it.
    """
    kind = type(value)
    if tuple in rule.types and kind is not tuple and isinstance(value, (list, Iterator)):
        value = tuple(value)
    elif FrozenDict in rule.types and kind is not FrozenDict and isinstance(value, Mapping):
        value = _frozen(value)
    elements: Iterable[Any] = ()
    if isinstance(value, (tuple, FrozenDict)) and object not in rule.elements:
        elements = value.values() if isinstance(value, FrozenDict) else value
    if not _matches(value, rule.types) or not all(_matches(e, rule.elements) for e in elements):
        raise TypeError(f"it must be {rule.annotation}")
    return value


def validate(record: Any) -> None:
    """Validate the fields of a dataclass by their annotations, and make their values immutable.

    A wrong field would otherwise fail later, in a command about another backbone. Every `zoo list`
    validates tens of thousands of fields, so the type alone decides wherever it can.

    Raises:
        UsageError: names the field.
    """
    rules = _rules(type(record))  # type: ignore[arg-type]  # mypy does not take a class as hashable
    for rule in rules:
        value = getattr(record, rule.name)
        if type(value) in rule.exact or value is rule.default:
            continue
        try:
            validated = _validated(value, rule)
        except TypeError as error:
            owner = f"{type(record).__name__} {getattr(record, rules[0].name)!r}"[:80]
            message = f"{owner}: {rule.name} must be {rule.annotation}, not {value!r}"
            raise UsageError(message[:240]) from error
        if validated is not value:
            _set(record, rule.name, validated)


@cache
def _defaults(cls: type) -> tuple[Mapping[str, Any], frozenset[str], bool]:
    """Return the defaults of a class's fields, the names of those without one, and if it has slots.

    `restore` is called thousands of times by every `zoo list`.
    """
    defaults = {
        item.name: FrozenDict() if item.default_factory is FrozenDict else item.default
        for item in fields(cls)
    }
    required = frozenset(name for name, value in defaults.items() if value is MISSING)
    return defaults, required, "__slots__" in cls.__dict__


def restore(cls: type[Record], values: Mapping[str, Any]) -> Record:
    """Create a record from the fields of a validated one, without validating them again.

    Args:
        cls: of the record.
        values: fields as JSON values; those at their default may be missing.

    Raises:
        KeyError: a field without a default is missing.
    """
    defaults, required, slots = _defaults(cls)  # type: ignore[arg-type]  # as in `validate`
    if not required <= values.keys():
        raise KeyError(min(required - values.keys()))
    filled = {**defaults, **values}
    for name, value in values.items():
        kind = type(value)
        if kind is dict:
            filled[name] = _frozen(value)
        elif kind is list:
            filled[name] = tuple(value)
    record = object.__new__(cls)
    if slots:
        for name, value in filled.items():
            _set(record, name, value)
    else:
        record.__dict__.update(filled)
    return record


def with_fields(record: Record, **values: Any) -> Record:
    """Return a copy of a record with some fields replaced, without validating them again."""
    copied = copy(record)
    for name, value in values.items():
        _set(copied, name, value)
    return copied


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    return value


def to_dict(record: Any) -> dict[str, Any]:
    """Return a record as plain data for JSON, without the fields at their default."""
    plain = {}
    for item in fields(record):
        value = getattr(record, item.name)
        if value != item.default and not (isinstance(value, Mapping) and not value):
            plain[item.name] = _plain(value)
    return plain
