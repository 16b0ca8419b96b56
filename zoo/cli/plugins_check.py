"""`zoo plugins check`."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from zoo.cli.group import Settings, ZooCommand
from zoo.cli.options import json_option
from zoo.cli.output import print_json, print_line
from zoo.errors import BrokenPlugin, ExitCode, UsageError, did_you_mean, one_line
from zoo.registry.plugins import CONFLICT, FAILED, OK, PluginRecord
from zoo.registry.registry import Registry
from zoo.spec import Backbone
from zoo.testing.findings import Finding
from zoo.testing.runner import BACKBONE, OBSERVING, PLUGIN, TASK, Job, WorkerSettings, run_jobs
from zoo.testing.weight_checks import WEIGHTS, name_of

# Imported once for all checks of a library's own backbones.
LIBRARIES = ("torchvision", "timm")

KINDS = {BACKBONE: "backbones", TASK: "tasks", WEIGHTS: "weights", PLUGIN: "plugins"}


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


def _resolve(settings: Settings, what: str) -> tuple[Registry, list[str]]:
    """Return the registry, and the names of the sources to check.

    Args:
        settings: of the command; a Python file is added to its plugins.
        what: name of a source, path of a Python file, or path of a package folder.

    Raises:
        UsageError: no such plugin is installed, or it is disabled.
        BrokenPlugin: the plugin fails to load.
    """
    path = Path(what)
    if path.suffix == ".py":
        settings.plugin_files.append(path)
        registry = settings.registry()
        names = [r.name for r in registry.host.records if r.file and r.file == path.absolute()]
    elif path.is_dir():
        names, registry = _entry_points(path), settings.registry()
    else:
        names, registry = [what], settings.registry()
    # Of several plugins of one name, the first has it.
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
            raise UsageError(f"plugin {name!r} is switched off")
    return registry, names


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
        jobs += [Job(PLUGIN, each.name) for each in records if _observes(each)]
    if not jobs and pattern:
        raise UsageError(f"{', '.join(names)} has no backbones that match {pattern!r}")
    if not jobs:
        hint = "it registers nothing, and observes no training"
        raise UsageError(f"{', '.join(names)} has nothing to check", hint)
    return jobs, {backbone.plugin for backbone in backbones}


def _observes(record: PluginRecord) -> bool:
    return any(hook in OBSERVING for hook in record.hooks)


def _describe(kind: str, name: str, findings: Sequence[Finding]) -> dict[str, Any]:
    checks = [asdict(finding) for finding in findings]
    for check in checks:
        check["seconds"] = round(check["seconds"], 3)
        del check["backbone"], check["trace"]
    return {kind: name, "conforms": _conforms(findings), "checks": checks}


def _conforms(findings: Sequence[Finding]) -> bool:
    return not any(finding.failed for finding in findings)


def _print(name: str, findings: Sequence[Finding], debug: bool) -> None:
    counts = Counter(finding.status for finding in findings)
    totals = ", ".join(f"{number} {status}" for status, number in counts.items())
    print_line(f"{name}: {totals}")
    for finding in findings:
        if finding.failed:
            print_line(f"  {finding.check} ({finding.requirement}): {finding.detail}")
            for line in (finding.trace or "").splitlines() if debug else ():
                print_line(f"    {line}")


@click.command(cls=ZooCommand, name="check")
@click.argument("what", metavar="NAME|PATH")
@click.option("--backbone", metavar="PATTERN", help="Only backbones that match, by id or name.")
@click.option(
    "--sample",
    type=click.IntRange(min=1),
    metavar="N",
    help="Only N of the backbones, evenly spaced in their order.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    metavar="N",
    default=1,
    help="Check N at once, with a share of the cores each.  [default: 1]",
)
@json_option
@click.pass_obj
def command(
    settings: Settings,
    what: str,
    backbone: str | None,
    sample: int | None,
    jobs: int,
    as_json: bool,
) -> int:
    """Run the conformance checks on the backbones, tasks, weights and observers of a plugin.

    NAME is a source: a plugin, or the part before the slash of backbones that a registry.toml
    derives. PATH is a Python file, or the folder of an installed package. The exit code is 5 if any
    check fails.

    Each backbone is checked in a process of its own: a crash in native code is one failed check.
    Hooks that observe trainings are called in one of a tiny network.
    """
    registry, names = _resolve(settings, what)
    selected, plugins = _select(registry, names, backbone, sample)
    workers = WorkerSettings.of(
        settings.without,
        settings.registry_file,
        settings.plugin_files,
        [library for library in LIBRARIES if library in plugins],
    )
    items: list[dict[str, Any]] = []
    for job, findings in run_jobs(selected, workers, jobs):
        items.append(_describe(job.kind, job.name, findings))
        if not as_json:
            label = job.name if job.kind == BACKBONE else f"{job.kind} {job.name}"
            _print(label, findings, settings.debug)
    if as_json:
        print_json(items)
    for kind, plural in () if as_json else KINDS.items():
        conform = [item["conforms"] for item in items if kind in item]
        if conform:
            print_line(f"{sum(conform):,} of {len(conform):,} {plural} conform")
    return ExitCode.DONE if all(item["conforms"] for item in items) else ExitCode.BROKEN
