"""`zoo plugins check`."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.cli.group import Settings, ZooCommand
from zoo.cli.options import json_option
from zoo.cli.output import print_json, print_line
from zoo.errors import BrokenPlugin, ExitCode, UsageError, did_you_mean, one_line
from zoo.registry.plugins import CONFLICT, FAILED, OK
from zoo.registry.registry import Registry
from zoo.spec import Backbone, Task

if TYPE_CHECKING:
    from zoo.testing.findings import Finding

KINDS = {"backbone": "backbones", "task": "tasks", "weights": "weights"}


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


def _select(
    registry: Registry, names: Sequence[str], pattern: str | None
) -> tuple[list[Backbone], list[Task]]:
    """Return the backbones and the tasks to check; with a pattern, backbones only.

    Raises:
        UsageError: no backbone matches.
        BrokenPlugin: the plugin's catalogue cannot be read.
    """
    patterns = [pattern] if pattern else []
    backbones = [backbone for name in names for backbone in registry.find(patterns, source=name)]
    for record in registry.host.records:
        if record.name in names and record.status == FAILED:
            raise BrokenPlugin(f"plugin {record.name!r} does not load: {record.error}")
    tasks = [] if pattern else [task for task in registry.tasks.values() if task.source in names]
    weights = any(record.weights for record in registry.host.records if record.name in names)
    if not backbones and not tasks and (pattern or not weights):
        which = f"that match {pattern!r}" if pattern else "to check"
        raise UsageError(f"{', '.join(names)} has no backbones {which}")
    return backbones, tasks


def _check(
    settings: Settings, registry: Registry, backbone: Backbone, groups: set[str]
) -> list[Finding]:
    """Run the suite on a backbone, in a fresh process too if it is the first of its group."""
    from zoo.testing.fresh import in_fresh_process
    from zoo.testing.subject import Subject
    from zoo.testing.suite import run_checks

    subject = Subject(backbone, registry)
    try:
        group = subject.group
    except Exception:  # the checks fail in the same way, and report it
        group = ""
    if group not in groups:
        groups.add(group)
        subject.fresh = in_fresh_process(
            settings.without, settings.registry_file, settings.plugin_files
        )
    return list(run_checks(subject))


def _check_task(registry: Registry, task: Task) -> list[Finding]:
    """Run the task suite on a task, with a backbone of its plugin if there is one."""
    from zoo.testing.task_suite import run_task_checks, task_subject

    return list(run_task_checks(task_subject(task.name, registry)))


def _check_weights(registry: Registry, names: Sequence[str]) -> Iterator[Finding]:
    """Check the weights that plugins provide for backbones of others."""
    from zoo.testing.weight_checks import run_weight_check

    for record in registry.host.records:
        for item in record.weights if record.name in names else ():
            yield run_weight_check(item, registry)


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
@json_option
@click.pass_obj
def command(settings: Settings, what: str, backbone: str | None, as_json: bool) -> int:
    """Run the conformance checks on the backbones, tasks and weights of a plugin.

    NAME is a source: a plugin, or the part before the slash of backbones that a registry.toml
    derives. PATH is a Python file, or the folder of an installed package. The exit code is 5 if any
    check fails.
    """
    registry, names = _resolve(settings, what)
    backbones, tasks = _select(registry, names, backbone)
    groups: set[str] = set()
    items: list[dict[str, Any]] = []

    def report(kind: str, name: str, label: str, findings: Sequence[Finding]) -> None:
        items.append(_describe(kind, name, findings))
        if not as_json:
            _print(label, findings, settings.debug)

    for each in backbones:
        report("backbone", each.id, each.id, _check(settings, registry, each, groups))
    for task in tasks:
        report("task", task.name, f"task {task.name}", _check_task(registry, task))
    for finding in () if backbone else _check_weights(registry, names):
        report("weights", finding.backbone, f"weights {finding.backbone}", [finding])
    if as_json:
        print_json(items)
    for kind, plural in () if as_json else KINDS.items():
        conform = [item["conforms"] for item in items if kind in item]
        if conform:
            print_line(f"{sum(conform):,} of {len(conform):,} {plural} conform")
    return ExitCode.DONE if all(item["conforms"] for item in items) else ExitCode.BROKEN
