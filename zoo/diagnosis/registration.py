"""Check the configuration and the plugins."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from shlex import quote
from typing import Any

from zoo.diagnosis.check import ERROR, WARNING, Check
from zoo.errors import ExitCode, RegistryError, counted
from zoo.files import config_dir
from zoo.registry.config import load_config, shipped_file
from zoo.registry.plugin_scope import current
from zoo.registry.plugins import OFF, OK, PluginRecord
from zoo.registry.registry import load_plugins, load_registry


def examine_configuration(file: Path | None) -> Iterator[Check]:
    """Yield the registry files that apply, and the folder of weights.

    Args:
        file: of `--registry`.

    Raises:
        RegistryError: a file is invalid.
    """
    user, file = config_dir() / "registry.toml", file or current().selection.file
    files = [*([user] if user.exists() else []), *([file] if file else [])]
    config = load_config(file, user)
    defaults = dict(config.defaults)
    stated = os.environ.get("ZOO_WEIGHTS_DIR") or config.weights_dir
    facts = {"files": [str(each) for each in files], "defaults": defaults, "weights_dir": stated}
    summary = ", ".join(map(str, files)) or f"{shipped_file().name} as shipped"
    yield Check("configuration", summary, facts=facts)
    if stated and not Path(stated).is_dir():
        hint = "create it by `zoo fetch NAME --to DIR`, or unset ZOO_WEIGHTS_DIR and weights_dir"
        yield Check("configuration", f"the folder of weights {stated} is missing", WARNING, hint)


def examine_plugins(
    without: Sequence[str], file: Path | None, plugins: Sequence[Path]
) -> Iterator[Check]:
    """Yield the plugins, and each that failed or conflicts; reads the catalogues.

    Args:
        without: plugins to exclude, as `--no-plugin`.
        file: of `--registry`.
        plugins: python files of plugins, as `--plugin`.

    Raises:
        UsageError: a switch names an unknown plugin, or an option of a plugin is invalid.
        BrokenPlugin: a plugin failed and `ZOO_STRICT=1` is set.
    """
    counted_in = ""
    facts: dict[str, Any] = {}
    try:
        registry = load_registry(without, file, plugins)
        facts["backbones"] = len(registry)
        counted_in = f": {counted(len(registry), 'backbone')}"
        _ = registry.plugin_options
        records = registry.host.records
    except RegistryError:  # which is that of the configuration
        records = load_plugins(without, plugins).records
    facts["status"] = {record.name: record.status for record in records}
    working = ", ".join(record.name for record in records if record.status == OK)
    off = ", ".join(record.name for record in records if record.status == OFF)
    summary = f"{working}{counted_in}" + (f"; switched off: {off}" if off else "")
    yield Check("plugins", summary, facts=facts)
    for record in records:
        if record.status not in (OK, OFF):
            yield _failed(record)


def _failed(record: PluginRecord) -> Check:
    summary = f"{record.name} ({record.home}) {record.status}: {record.error}"
    file = f" --plugin {quote(str(record.file))}" if record.file else ""
    hint = f"`zoo plugins show {record.name}{file}` shows where"
    return Check("plugins", summary, ERROR, hint, ExitCode.BROKEN)
