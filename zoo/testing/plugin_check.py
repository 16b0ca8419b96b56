"""Run the conformance checks on all that a plugin registers."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from zoo.errors import BrokenPlugin, UsageError, did_you_mean, one_line
from zoo.options.arguments import names_arguments
from zoo.registry.discovery import GIVEN
from zoo.registry.plugin_scope import Selection, current
from zoo.registry.plugins import CONFLICT, FAILED, OK, PluginRecord
from zoo.registry.registry import Registry, load_registry
from zoo.spec import Backbone
from zoo.testing.findings import Finding
from zoo.testing.runner import BACKBONE, OBSERVING, PLUGIN, TASK, Job, WorkerSettings, run_jobs
from zoo.testing.weight_checks import WEIGHTS, name_of

# Imported once for all checks of a library's own backbones.
LIBRARIES = ("torchvision", "timm")


@dataclass(frozen=True)
class Checked:
    """The result of the checks on one item of a plugin.

    Args:
        kind: `backbone`, `task`, `weights` or `plugin`.
        name: of it.
        findings: one for each check.
    """

    kind: str
    name: str
    findings: tuple[Finding, ...]

    @property
    def conforms(self) -> bool:
        """Whether no check failed."""
        return not any(finding.failed for finding in self.findings)


@names_arguments
def check_plugin(
    what: str | Path, backbone: str | None = None, *, sample: int | None = None, jobs: int = 1
) -> list[Checked]:
    """Run the conformance checks of a plugin, as `zoo plugins check` does.

    Args:
        what: name of a source, path of a Python file, or path of an installed package's folder.
        backbone: only backbones that match this pattern, by id or name.
        sample: only that many of the backbones, evenly spaced in their order; None for all.
        jobs: number of checks at once.

    Returns:
        For each backbone, task and weights, and for the observing hooks and export formats of a
        plugin, its `findings`, and whether it `conforms`.

    Raises:
        UsageError: no such plugin is installed, or nothing of it can be checked.
        BrokenPlugin: the plugin fails to load.
    """
    return list(check_each(what, current().selection, backbone, sample, jobs))


def check_each(
    what: str | Path,
    selection: Selection,
    backbone: str | None = None,
    sample: int | None = None,
    jobs: int = 1,
) -> Iterator[Checked]:
    """Run the checks, and yield the result of each item as it is done, in order.

    Args:
        what: name of a source, path of a Python file, or path of an installed package's folder.
        selection: the plugins and the registry file to load.
        backbone: only backbones that match this pattern, by id or name.
        sample: only that many of the backbones, evenly spaced in their order; None for all.
        jobs: number of checks at once.

    Raises:
        UsageError: no such plugin is installed, or nothing of it can be checked.
        BrokenPlugin: the plugin fails to load.
    """
    selection, registry, names = _resolve(what, selection)
    selected, plugins = _select(registry, names, backbone, sample)
    libraries = [library for library in LIBRARIES if library in plugins]
    for job, findings in run_jobs(selected, WorkerSettings.of(*selection, libraries), jobs):
        yield Checked(job.kind, job.name, tuple(findings))


def _entry_points(folder: Path) -> list[str]:
    """Return the names of the entry points that a plugin package declares.

    Raises:
        UsageError: the folder has no `pyproject.toml` with entry points of the group `zoo`.
    """
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
        names = list(project["project"]["entry-points"]["zoo"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{folder} is not a plugin package: {one_line(error)}"
        hint = "its pyproject.toml must have entry points of the group zoo"
        raise UsageError(message, hint) from error
    return names


def _resolve(what: str | Path, selection: Selection) -> tuple[Selection, Registry, list[str]]:
    """Return the plugins that workers load, the registry, and the names of the sources to check.

    Args:
        what: name of a source, path of a Python file, or path of a package folder.
        selection: of plugins; a Python file is added to it.

    Raises:
        UsageError: no such plugin is installed, or it is disabled.
        BrokenPlugin: the plugin fails to load.
    """
    path = Path(what)
    if path.suffix == ".py":
        selection = selection._replace(plugins=(*selection.plugins, path.absolute()))
    registry = load_registry(*selection)
    if path.suffix == ".py":
        names = [r.name for r in registry.host.records if r.file and r.file == path.absolute()]
    elif path.is_dir():
        names = _entry_points(path)
    else:
        names = [str(what)]
    # The first of several plugins of one name has it.
    records = {record.name: record for record in reversed(registry.host.records)}
    for name in names:
        if name in registry.derived:
            continue
        if name not in records:
            if path.is_dir():
                raise UsageError(f"{name} is not installed", f"`uv pip install -e {path}`")
            known = [*records, *registry.derived]
            hint = did_you_mean(name, known, f"there are {', '.join(known)}")
            raise UsageError(f"no plugin is named {name!r}", hint)
        if records[name].status in (FAILED, CONFLICT):
            hint = f"see `zoo plugins show {name}`"
            raise BrokenPlugin(f"plugin {name!r} does not load: {records[name].error}", hint)
        if records[name].status != OK:
            hint = "ZOO_PLUGINS or --no-plugin excludes it"
            raise UsageError(f"plugin {name!r} is switched off", hint)
        if records[name].distribution == GIVEN:
            hint = "its checks run in processes of their own: write it into a file, and check that"
            raise UsageError(f"{name!r} is registered in this process only", hint)
    return selection, registry, names


def _spaced(backbones: Sequence[Backbone], count: int | None) -> Sequence[Backbone]:
    """Return that many backbones, evenly spaced; None for all."""
    if count is None or count >= len(backbones):
        return backbones
    return [backbones[index * len(backbones) // count] for index in range(count)]


def _select(
    registry: Registry, names: Sequence[str], pattern: str | None, sample: int | None
) -> tuple[list[Job], set[str]]:
    """Return what to check, and the plugins that build it; with a pattern, backbones only.

    Raises:
        UsageError: no backbone matches, or there is nothing to check.
        BrokenPlugin: the plugin's catalogue cannot be read.
    """
    patterns = [pattern] if pattern else []
    every = [backbone for name in names for backbone in registry.find(patterns, source=name)]
    records = [record for record in registry.host.records if record.name in names]
    for record in records:
        if record.status == FAILED:
            raise BrokenPlugin(f"plugin {record.name!r} does not load: {record.error}")
    backbones = _spaced(every, sample)
    jobs = [Job(BACKBONE, each.id, dict(each.exceptions)) for each in backbones]
    if not pattern:
        jobs += [Job(TASK, task.name) for task in registry.tasks.values() if task.source in names]
        jobs += [Job(WEIGHTS, name_of(item)) for each in records for item in each.weights]
        jobs += [Job(PLUGIN, each.name) for each in records if _has_code(each)]
    if not jobs and pattern:
        message = f"{', '.join(names)} has no backbones that match {pattern!r}"
        raise UsageError(message, f"`zoo list --source {names[0]}` shows their names")
    if not jobs:
        hint = "it registers nothing but options, and observes no training"
        raise UsageError(f"{', '.join(names)} has nothing to check", hint)
    return jobs, {backbone.plugin for backbone in backbones}


def _has_code(record: PluginRecord) -> bool:
    """Whether a plugin observes trainings, or registers export formats."""
    return bool(record.formats) or any(hook in OBSERVING for hook in record.hooks)
