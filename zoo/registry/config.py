"""`registry.toml`: aliases, defaults, derived backbones and the folder of weights, as data.

The shipped file is at the top of the source tree, and inside the package in a wheel. The user's,
`$XDG_CONFIG_HOME/zoo/registry.toml`, overrides it key by key, and the file of `--registry`
overrides both. Derived backbones are replaced as whole entries.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from zoo.errors import RegistryError
from zoo.files import config_dir
from zoo.registry.tomlfile import Faults, Kinds, TomlFile, is_of_kind

if TYPE_CHECKING:
    from zoo.registry.derived import Entry

SCHEMA = 1
TABLES: Kinds = {
    "schema": (int,),
    "weights_dir": (str,),
    "defaults": (dict,),
    "aliases": (dict,),
    "backbones": (dict,),
    "plugins": (dict,),
}


class Setting(NamedTuple):
    """A value of a table `[plugins.NAME]`, with its file."""

    value: Any
    file: TomlFile


@dataclass(frozen=True)
class Config:
    """The merged registry files.

    Args:
        all_defaults: training defaults by key; those of the shipped file are not yet validated.
        aliases: id or name of a backbone by alias.
        origins: the file of each `table.key`.
        backbones: entries of derived backbones by id.
        weights_dir: absolute path of the folder of published weights; None without one.
        plugins: tables of plugins' options by plugin, which its schema has not validated yet.
    """

    all_defaults: Mapping[str, Any] = field(default_factory=dict)
    aliases: Mapping[str, str] = field(default_factory=dict)
    origins: Mapping[str, str] = field(default_factory=dict)
    backbones: Mapping[str, Entry] = field(default_factory=dict)
    weights_dir: str | None = None
    plugins: Mapping[str, Mapping[str, Setting]] = field(default_factory=dict)

    @cached_property
    def defaults(self) -> Mapping[str, Any]:
        """Training defaults by key.

        Raises:
            RegistryError: one of the shipped file is invalid.
        """
        _check_defaults(TomlFile(shipped_file()))
        return self.all_defaults


def shipped_file() -> Path:
    """Return the path of the `registry.toml` shipped with zoo."""
    package = Path(__file__).parent.parent
    packaged = package / "registry.toml"
    return packaged if packaged.exists() else package.parent / "registry.toml"


def _check_defaults(file: TomlFile) -> None:
    if not (table := file.content.get("defaults", {})):
        return
    # Here, because listing backbones needs no option: 5 ms of its start-up.
    from zoo.options.table import DEFAULTS

    kinds = {key: (int, float) if r.kind is float else (r.kind,) for key, r in DEFAULTS.items()}
    faults = Faults(file)
    with faults.collecting():
        file.check(("defaults",), table, kinds)
    for key, value in table.items() if isinstance(table, dict) else ():
        if key in kinds and is_of_kind(value, kinds[key]) and value not in DEFAULTS[key]:
            with faults.collecting():
                raise file.error(("defaults", key), f"is {value!r}", f"give {DEFAULTS[key]}")
    faults.raise_all()


def read_file(path: Path) -> tuple[dict[str, Any], dict[str, Entry]]:
    """Read and validate one registry file.

    Returns:
        The content of the file, and its derived backbones by id.

    Raises:
        RegistryError: it is unreadable or invalid; names file, line and key of each fault.
    """
    file = TomlFile(path)
    content, entries, faults = file.content, {}, Faults(file)
    if content.get("schema") != SCHEMA:  # before all: another may have other tables
        raise file.error(("schema",), f"must be {SCHEMA}", f"add schema = {SCHEMA}")
    with faults.collecting():
        file.check((), content, TABLES)
    tables = {key: value for key, value in content.items() if isinstance(value, dict)}
    if path != shipped_file():  # which is validated when its defaults are read
        with faults.collecting():
            _check_defaults(file)
    for name, kind in (("aliases", str), ("plugins", dict)):
        table = tables.get(name, {})
        with faults.collecting():
            file.check((name,), table, dict.fromkeys(table, (kind,)))
    if isinstance(content.get("weights_dir"), str):
        with faults.collecting():
            content["weights_dir"] = file.absolute_path(("weights_dir",), content["weights_dir"])
    if "backbones" in tables:
        from zoo.registry.derived import read_entries  # only where needed: start-up time

        with faults.collecting():
            entries = read_entries(file, tables["backbones"])
    faults.raise_all()
    content["plugins"] = {
        name: {key: Setting(value, file) for key, value in table.items()}
        for name, table in tables.get("plugins", {}).items()
    }
    return content, entries


@cache
def load_config(file: Path | None = None, user: Path | None = None) -> Config:
    """Return the shipped registry file, overridden by the user's, then by the given one.

    Args:
        file: of `--registry`.
        user: the user's file; by default that in `config_dir`, as of the first call.

    Raises:
        RegistryError: one of them is invalid.
    """
    merged: dict[str, dict[str, Any]] = {"defaults": {}, "aliases": {}}
    backbones: dict[str, Entry] = {}
    origins: dict[str, str] = {}
    plugins: dict[str, dict[str, Setting]] = {}
    weights_dir = None
    user = user or config_dir() / "registry.toml"
    layers = [shipped_file(), *([user] if user.exists() else []), *([file] if file else [])]
    errors: list[RegistryError] = []
    for path in layers:
        try:
            content, entries = read_file(path)
        except RegistryError as error:
            errors.append(error)
            continue
        backbones.update(entries)
        weights_dir = content.get("weights_dir", weights_dir)
        for name, table in content["plugins"].items():
            plugins.setdefault(name, {}).update(table)
        for table, values in merged.items():
            values.update(content.get(table, {}))
            origins.update({f"{table}.{key}": str(path) for key in content.get(table, {})})
    if len(errors) > 1:
        raise RegistryError("; ".join(map(str, errors)))
    if errors:
        raise errors[0]
    return Config(merged["defaults"], merged["aliases"], origins, backbones, weights_dir, plugins)
