"""`zoo plugins check`."""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zoo.cli.group import Settings, ZooCommand
from zoo.cli.output import print_json, print_line
from zoo.errors import BrokenPlugin, ExitCode, UsageError, did_you_mean, one_line
from zoo.registry.plugins import CONFLICT, FAILED, OK
from zoo.registry.registry import Registry
from zoo.spec import Backbone, Task

if TYPE_CHECKING:
    from zoo.testing.findings import Finding


def _entry_points(folder: Path) -> list[str]:
    """Return the names of the plugins that a package states.

    Raises:
        UsageError: it is no folder of a plugin package.
    """
    try:
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8"))
        names = list(project["project"]["entry-points"]["zoo"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        message = f"{folder} is no plugin package: {one_line(error)}"
        hint = "give one whose pyproject.toml has entry points of the group zoo, or a python file"
        raise UsageError(message, hint) from error
    return names


def _find(settings: Settings, what: str) -> tuple[Registry, list[str]]:
    """Return the registry, and the names of the sources that are meant.

    Raises:
        UsageError: nothing of that name is installed, or it is switched off.
        BrokenPlugin: it failed to load.
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
    records = {record.name: record for record in registry.host.records}
    for name in names:
        if name in registry.derived:
            continue
        if name not in records:
            if path.is_dir():
                raise UsageError(f"{name} is not installed", f"`uv pip install -e {path}`")
            known = [*records, *registry.derived]
            hint = did_you_mean(name, known, f"there are: {', '.join(known)}")
            raise UsageError(f"no plugin is named {name!r}", hint)
        if records[name].status in (FAILED, CONFLICT):
            hint = f"`zoo plugins show {name}` says more"
            raise BrokenPlugin(f"plugin {name!r} does not load: {records[name].error}", hint)
        if records[name].status != OK:
            raise UsageError(f"plugin {name!r} is switched off")
    return registry, names


def _chosen(
    registry: Registry, names: Sequence[str], pattern: str | None
) -> tuple[list[Backbone], list[Task]]:
    """Return the backbones and the tasks to check; with a pattern, backbones alone.

    Raises:
        UsageError: there are none.
        BrokenPlugin: the plugin's catalogue cannot be read.
    """
    patterns = [pattern] if pattern else []
    found = [backbone for name in names for backbone in registry.find(patterns, source=name)]
    for record in registry.host.records:
        if record.name in names and record.status == FAILED:
            raise BrokenPlugin(f"plugin {record.name!r} does not load: {record.error}")
    tasks = [] if pattern else [task for task in registry.tasks.values() if task.source in names]
    if not found and not tasks:
        which = f"that match {pattern!r}" if pattern else "to check"
        raise UsageError(f"{', '.join(names)} has no backbones {which}")
    return found, tasks


def _check(
    settings: Settings, registry: Registry, backbone: Backbone, groups: set[str]
) -> list[Finding]:
    """Hold the suite against a backbone; in a fresh process too, for the first of its like."""
    from zoo.testing.fresh import in_fresh_process
    from zoo.testing.subject import Subject
    from zoo.testing.suite import hold_all

    subject = Subject(backbone, registry)
    try:
        group = subject.group
    except Exception:  # whatever it is, the checks come upon it too, and say so
        group = ""
    if group not in groups:
        groups.add(group)
        subject.fresh = in_fresh_process(
            settings.without, settings.registry_file, settings.plugin_files
        )
    return list(hold_all(subject))


def _check_task(registry: Registry, task: Task) -> list[Finding]:
    """Try the suite of tasks on one, with a backbone of its plugin where there is one."""
    from zoo.testing.task_suite import check_all, task_subject

    return list(check_all(task_subject(task.name, registry)))


def _describe(kind: str, name: str, findings: Sequence[Finding]) -> dict[str, Any]:
    checks = [asdict(found) for found in findings]
    for check in checks:
        check["seconds"] = round(check["seconds"], 3)
        del check["backbone"], check["trace"]
    return {kind: name, "conforms": _conforms(findings), "checks": checks}


def _conforms(findings: Sequence[Finding]) -> bool:
    return not any(found.broken for found in findings)


def _print(name: str, findings: Sequence[Finding], debug: bool) -> None:
    counted = Counter(found.status for found in findings)
    said = ", ".join(f"{number} {status}" for status, number in counted.items())
    print_line(f"{name}: {said}")
    for found in findings:
        if found.broken:
            print_line(f"  {found.check} ({found.promise}): {found.detail}")
            for line in (found.trace or "").splitlines() if debug else ():
                print_line(f"    {line}")


@click.command(cls=ZooCommand, name="check")
@click.argument("what", metavar="NAME|PATH")
@click.option("--backbone", metavar="PATTERN", help="Only those that match, by id or name.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_obj
def command(settings: Settings, what: str, backbone: str | None, as_json: bool) -> int:
    """Hold a plugin's backbones and tasks against every promise that zoo makes of one.

    NAME is a plugin, or the part before the slash of backbones that a registry file derives. PATH
    is a python file, or the folder of an installed package.
    """
    registry, names = _find(settings, what)
    chosen, tasks = _chosen(registry, names, backbone)
    groups: set[str] = set()
    described: list[dict[str, Any]] = []

    def report(kind: str, name: str, shown: str, findings: Sequence[Finding]) -> None:
        described.append(_describe(kind, name, findings))
        if not as_json:
            _print(shown, findings, settings.debug)

    for one in chosen:
        report("backbone", one.id, one.id, _check(settings, registry, one, groups))
    for task in tasks:
        report("task", task.name, f"task {task.name}", _check_task(registry, task))
    if as_json:
        print_json(described)
    for kind, number in () if as_json else (("backbone", len(chosen)), ("task", len(tasks))):
        good = sum(each["conforms"] for each in described if kind in each)
        if number:
            print_line(f"{good:,} of {number:,} {kind}s conform")
    return ExitCode.DONE if all(each["conforms"] for each in described) else ExitCode.BROKEN
