"""`registry.toml`: aliases and defaults, as data.

The shipped file lies at the top of the source tree, and inside the package in a wheel. The user's
own, `$XDG_CONFIG_HOME/zoo/registry.toml`, is laid over it key by key.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from zoo.errors import RegistryError, did_you_mean
from zoo.files import config_dir

SCHEMA = 1
TABLES = {"schema": int, "defaults": dict, "aliases": dict}


@dataclass(frozen=True)
class Range:
    """What a training default may be.

    Args:
        kind: int or float; where a float is wanted, a whole number does too.
        least: the smallest value.
        most: the largest.
        open: neither bound itself is allowed.
    """

    kind: type
    least: float
    most: float
    open: bool = False

    def __contains__(self, value: float) -> bool:
        # What is not a number compares as false, so that nan is in no range.
        if self.open:
            return self.least < value < self.most
        return self.least <= value <= self.most

    def __str__(self) -> str:
        words = "between {} and {}" if self.open else "from {} to {}"
        return "a number " + words.format(self.least, self.most)


EPOCHS = Range(int, 1, 2**31)
RATE = Range(float, 0, 10**6, open=True)
# The bounds are those of the options that stand above these defaults.
DEFAULTS: dict[str, Range] = {
    "seed": Range(int, 0, 2**63 - 1),
    "batch_size": Range(int, 2, 2**31),
    "val_fraction": Range(float, 0, 1, open=True),
    "head_epochs": EPOCHS,
    "head_lr": RATE,
    "all_epochs": EPOCHS,
    "all_lr": RATE,
    "tune_epochs": EPOCHS,
    "tune_lr": RATE,
    "random_epochs": EPOCHS,
    "random_lr": RATE,
    "weight_decay": Range(float, 0, 10**9),
    "momentum": Range(float, 0, 1),
}


@dataclass(frozen=True)
class Config:
    """What the registry files say together.

    Args:
        defaults: training defaults by key.
        aliases: another name for a backbone, to its id or name.
        origins: for each `table.key`, the file it was taken from.
    """

    defaults: Mapping[str, Any] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)


def shipped_file() -> Path:
    """Return the `registry.toml` that came with zoo."""
    inside = Path(__file__).parent / "registry.toml"
    return inside if inside.exists() else inside.parent.parent / "registry.toml"


def _line_of(text: str, table: str, key: str) -> int:
    """Return the line (from 1) of a key within its table, or of the table."""
    inside = table == ""
    last = 1
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[+\s*([^\]]+?)\s*\]+", line):
            inside = header.group(1) == table
            last = number if inside else last
            if table == "" and header.group(1).split(".")[0].strip('"') == key:
                return number
        elif inside and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*=", line):
            return number
    return last


def _check(path: Path, text: str, table: str, key: str, value: Any, known: Mapping) -> None:
    where = f"{path}, line {_line_of(text, table, key)}"
    name = f"{table}.{key}" if table else key
    if key not in known:
        hint = did_you_mean(key, list(known), f"known keys: {', '.join(known)}")
        raise RegistryError(f"{where}: unknown key {name}", hint)
    allowed = known[key]
    wanted = allowed.kind if isinstance(allowed, Range) else allowed
    fits = isinstance(value, (int, float)) if wanted is float else isinstance(value, wanted)
    if not fits or isinstance(value, bool):
        raise RegistryError(f"{where}: {name} must be of type {wanted.__name__}, not {value!r}")
    if isinstance(allowed, Range) and value not in allowed:
        raise RegistryError(f"{where}: {name} is {value!r}", f"give {allowed}")


def read_file(path: Path) -> dict[str, Any]:
    """Read and check one registry file.

    Raises:
        RegistryError: it cannot be read or understood; says file, line and key.
    """
    try:
        text = path.read_text(encoding="utf-8")
        content = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise RegistryError(f"cannot read {path}: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise RegistryError(f"{path}: not valid TOML: {error}") from error
    for key, value in content.items():
        _check(path, text, "", key, value, TABLES)
    if content.get("schema") != SCHEMA:
        line = _line_of(text, "", "schema")
        raise RegistryError(
            f"{path}, line {line}: schema must be {SCHEMA}", f"add schema = {SCHEMA}"
        )
    for key, value in content.get("defaults", {}).items():
        _check(path, text, "defaults", key, value, DEFAULTS)
    for key, value in content.get("aliases", {}).items():
        _check(path, text, "aliases", key, value, {key: str})
    return content


@cache
def load_config() -> Config:
    """Return the shipped registry file with the user's laid over it.

    Raises:
        RegistryError: one of them cannot be used.
    """
    merged: dict[str, dict[str, Any]] = {"defaults": {}, "aliases": {}}
    origins: dict[str, str] = {}
    user = config_dir() / "registry.toml"
    for path in [shipped_file(), *([user] if user.exists() else [])]:
        content = read_file(path)
        for table, values in merged.items():
            values.update(content.get(table, {}))
            origins.update({f"{table}.{key}": str(path) for key in content.get(table, {})})
    return Config(merged["defaults"], merged["aliases"], origins)
