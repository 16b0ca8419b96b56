"""`zoo plugins check`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import click

from zoo.cli.complete import complete_checked
from zoo.cli.group import Settings, ZooCommand
from zoo.cli.options import json_option
from zoo.cli.output import print_json, print_line
from zoo.errors import ExitCode
from zoo.registry.plugin_scope import Selection
from zoo.testing.findings import Finding
from zoo.testing.plugin_check import Checked, check_each
from zoo.testing.runner import BACKBONE, PLUGIN, TASK
from zoo.testing.weight_checks import WEIGHTS

KINDS = {BACKBONE: "backbones", TASK: "tasks", WEIGHTS: "weights", PLUGIN: "plugins"}


def _describe(item: Checked) -> dict[str, Any]:
    checks = [asdict(finding) for finding in item.findings]
    for check in checks:
        check["seconds"] = round(check["seconds"], 3)
        del check["backbone"], check["trace"]
    return {item.kind: item.name, "conforms": item.conforms, "checks": checks}


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
@click.argument("what", metavar="NAME|PATH", shell_complete=complete_checked)
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
    registry_file = settings.registry_file
    selection = Selection(tuple(settings.without), registry_file, tuple(settings.plugin_files))
    items: list[Checked] = []
    for item in check_each(what, selection, backbone, sample, jobs):
        items.append(item)
        if not as_json:
            label = item.name if item.kind == BACKBONE else f"{item.kind} {item.name}"
            _print(label, item.findings, settings.debug)
    if as_json:
        print_json([_describe(item) for item in items])
    for kind, plural in () if as_json else KINDS.items():
        if conform := [item.conforms for item in items if item.kind == kind]:
            print_line(f"{sum(conform):,} of {len(conform):,} {plural} conform")
    return ExitCode.DONE if all(item.conforms for item in items) else ExitCode.BROKEN
