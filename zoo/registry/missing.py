"""Errors for names of backbones, sources and tasks that nothing has, the most specific first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import islice
from pathlib import Path

from zoo.errors import BrokenPlugin, UnknownBackbone, UsageError, did_you_mean, nearest
from zoo.registry.own_models import own_model_names
from zoo.registry.plugins import FAILED, OFF, PluginRecord
from zoo.spec import Task

# Paths of a folder among which similar names are searched.
MOST_PATHS = 1000


def unavailable_plugin(query: str, records: Sequence[PluginRecord]) -> str:
    """Return the name and status of an unavailable plugin that may have the name, or ''."""
    source, slash, _ = query.partition("/")
    for record in records:
        if record.status in (OFF, FAILED) and (record.name == source or not slash):
            status = "is switched off" if record.status == OFF else f"failed: {record.error}"
            return f"{record.name} {status}"
    return ""


def unknown_backbone(
    query: str, records: Sequence[PluginRecord], suggestions: Sequence[str]
) -> BrokenPlugin | UnknownBackbone:
    """Return the error for a name that no backbone has.

    Args:
        query: the name.
        records: of all plugins.
        suggestions: the nearest names.
    """
    source = query.partition("/")[0]
    for record in records:
        if record.name == source and record.status == FAILED:
            hint = f"`zoo plugins` shows what happened to {source}"
            return BrokenPlugin(f"{query} comes from a plugin that failed: {record.error}", hint)
    failed = _named(records, FAILED)
    note = f"plugins that failed to load: {', '.join(failed)}" if failed else None
    if source in _named(records, OFF):
        note = f"plugin {source} is switched off"
    own = own_model_names()
    if query in own:
        hint = f"{query} is a model of yours; `zoo list --mine` shows its backbone"
        return UnknownBackbone(query, (), note, hint)
    near = (*nearest(query, own), *suggestions, *_similar_paths(query))
    return UnknownBackbone(query, near, note)


def _similar_paths(query: str) -> list[str]:
    """Return what is in the folder of a path that does not exist, by a similar name."""
    path = Path(query)
    try:
        entries = islice(path.parent.iterdir(), MOST_PATHS if "/" in query else 0)
        beside = [each.name for each in entries]
    except OSError:
        return []
    return [str(path.with_name(name)) for name in nearest(path.name, beside)]


def unknown_source(
    name: str, records: Sequence[PluginRecord], known: Sequence[str]
) -> BrokenPlugin | UsageError:
    """Return the error for a name that no working source has.

    Args:
        name: of the source.
        records: of all plugins.
        known: names of all sources.
    """
    if (failed := _named(records, FAILED).get(name)) is not None:
        hint = f"`zoo plugins show {name}` shows where"
        return BrokenPlugin(f"plugin {name!r} failed: {failed.error}", hint)
    if name in _named(records, OFF):
        hint = "check --no-plugin and ZOO_PLUGINS"
        return UsageError(f"the plugin {name!r} is switched off", hint)
    hint = did_you_mean(name, known, f"one of {', '.join(known)}") or ""
    return UsageError(f"no source is named {name!r}", hint)


def unknown_task(
    name: str, records: Sequence[PluginRecord], tasks: Mapping[str, Task]
) -> UsageError:
    """Return the error for a task that no working plugin registers.

    Args:
        name: of the task.
        records: of all plugins.
        tasks: registered ones by name.
    """
    unavailable = {"switched off": _named(records, OFF), "failed": _named(records, FAILED)}
    notes = [f"{status}: {', '.join(names)}" for status, names in unavailable.items() if names]
    note = f" (plugins {'; '.join(notes)})" if notes else ""
    known = ", ".join(f"{task.name} by {task.origin}" for task in tasks.values()) or "none"
    hint = f"install a plugin that does, or choose another backbone; registered: {known}"
    return UsageError(f"no plugin registers the task {name!r}{note}", hint)


def _named(records: Sequence[PluginRecord], status: str) -> dict[str, PluginRecord]:
    return {record.name: record for record in records if record.status == status}
