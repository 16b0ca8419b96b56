"""The options of plugins: environment variables, then `registry.toml`, then defaults."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from zoo.errors import UsageError, did_you_mean
from zoo.registry.plugins import OK, PluginRecord

if TYPE_CHECKING:
    from zoo.registry.config import Setting

log = logging.getLogger("zoo")


def resolve_plugin_options(
    records: Sequence[PluginRecord], tables: Mapping[str, Mapping[str, Setting]]
) -> dict[str, Mapping[str, Any]]:
    """Return the value of each option by name, of every working plugin by name.

    The table of a plugin that is not installed is warned of; that of one that is switched off or
    failed is ignored.

    Args:
        records: of all plugins.
        tables: `[plugins.NAME]` of the registry files, by plugin.

    Raises:
        RegistryError: a table has an unknown key or an invalid value; names file, line and key.
        UsageError: an environment variable has an invalid value.
    """
    from zoo.events import FrozenDict  # here, because listing backbones needs no event

    known = [record.name for record in records]
    for name in tables:
        if name not in known:
            hint = did_you_mean(name, known, "install it, or remove the table")
            log.warning("registry.toml: [plugins.%s]: no plugin has that name; %s", name, hint)
    return {
        record.name: FrozenDict(_values(record, tables.get(record.name, {})))
        for record in records
        if record.status == OK
    }


def _values(record: PluginRecord, table: Mapping[str, Setting]) -> dict[str, Any]:
    options = {option.name: option for option in record.options}
    for key, setting in table.items():
        if key not in options:
            known = f"its options: {', '.join(options) or 'none'}"
            hint = did_you_mean(key, list(options), known)
            keys = ("plugins", record.name, key)
            raise setting.file.error(keys, "is not an option of the plugin", hint)
    values = {}
    for key, option in options.items():
        values[key] = option.default
        if key in table:
            value, file = table[key]
            if not option.accepts(value):
                keys = ("plugins", record.name, key)
                raise file.error(keys, f"is {value!r}", option.allowed)
            values[key] = value
        if text := os.environ.get(option.variable):
            values[key] = option.parse(text)
            if not option.accepts(values[key]):
                raise UsageError(f"{option.variable} is {text!r}", option.allowed)
    return values
