"""The description of an option of a plugin: immutable data."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from zoo.errors import UsageError
from zoo.records import with_fields

Value = bool | int | float | str
BOOLEANS = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}


@dataclass(frozen=True)
class PluginOption:
    """An option of a plugin, set in `registry.toml` or by an environment variable.

    Args:
        name: lower-case letters, digits and underscores.
        default: its type (bool, int, float or str) is that of every value.
        help: what it does, in one line.
        choices: accepted values; empty for all.
        minimum: of a number.
        maximum: of a number.
        source: the plugin's entry-point name; set by the registry.
        origin: description of what registered it; set by the registry.
    """

    name: str
    default: Value
    help: str
    choices: tuple[Value, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    source: str = ""
    origin: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            hint = "lower-case letters, digits and underscores only"
            raise UsageError(f"{self.name!r} is not the name of an option", hint)
        if type(self.default) not in (bool, int, float, str):
            kinds = "bool, int, float or str"
            raise UsageError(f"option {self.name!r} has the default {self.default!r}", f"a {kinds}")
        object.__setattr__(self, "choices", tuple(self.choices))
        for value in (self.default, *self.choices):
            if not self.accepts(value):
                raise UsageError(f"option {self.name!r} has the value {value!r}", self.allowed)

    @property
    def variable(self) -> str:
        """The environment variable that sets it: `ZOO_PLUGIN_LEAFNET_PATIENCE`."""
        return re.sub("[^A-Z0-9]", "_", f"ZOO_PLUGIN_{self.source}_{self.name}".upper())

    @property
    def allowed(self) -> str:
        """What may be given, as a hint."""
        if self.choices:
            return f"give one of {', '.join(map(str, self.choices))}"
        bounds = [
            f"{words} {bound:g}"
            for words, bound in (("at least", self.minimum), ("at most", self.maximum))
            if bound is not None
        ]
        return f"give {' and '.join([f'a value of type {type(self.default).__name__}', *bounds])}"

    def accepts(self, value: Any) -> bool:
        """Whether a value has the type of the default, and is in range."""
        kinds = (int, float) if type(self.default) is float else (type(self.default),)
        if type(value) not in kinds or (self.choices and value not in self.choices):
            return False
        if isinstance(value, (bool, str)):
            return True
        low = -math.inf if self.minimum is None else self.minimum
        high = math.inf if self.maximum is None else self.maximum
        return bool(low <= value <= high)

    def parse(self, text: str) -> Any:
        """Return the value of a text, or the text where it is none."""
        if type(self.default) is bool:
            return BOOLEANS.get(text.strip().lower(), text)
        try:
            return type(self.default)(text)
        except ValueError:
            return text

    def with_source(self, source: str, origin: str) -> PluginOption:
        """Return a copy with its owner set."""
        return with_fields(self, source=source, origin=origin)
