"""`zoo doctor`."""

from __future__ import annotations

import click

from zoo.cli.group import Settings, ZooCommand
from zoo.cli.options import json_option
from zoo.cli.output import garbage_collection_disabled, print_json, print_line


@click.command(cls=ZooCommand, name="doctor")
@json_option
@click.pass_obj
@garbage_collection_disabled()
def command(settings: Settings, as_json: bool) -> None:
    """Check the installation, and print what to do where something is amiss.

    Prints versions, configuration, plugins, cache, disk, torch, devices, precision and engines. The
    exit code is 0 if nothing failed, else 6 (a library, a device, the cache or a disk), 2 (a
    registry file or a switch) or 5 (a plugin), the first of them that applies.
    """
    from zoo.diagnosis.check import Diagnosis
    from zoo.diagnosis.examine import examine

    checks = []
    for check in examine(settings.without, settings.registry_file, settings.plugin_files):
        checks.append(check)
        if not as_json:
            print_line(f"{check.status:<9}{check.name:<15}{check.to_text()}")
    diagnosis = Diagnosis(tuple(checks))
    if as_json:
        print_json(diagnosis.to_dict())
    diagnosis.raise_failed()
