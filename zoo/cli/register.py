"""`zoo register`."""

from __future__ import annotations

from dataclasses import asdict
from shlex import quote
from typing import Any

import click

from zoo.cli.complete import complete_model, complete_own
from zoo.cli.group import Settings, ZooCommand
from zoo.cli.options import json_option
from zoo.cli.output import print_json, print_line
from zoo.errors import UsageError


@click.command(cls=ZooCommand, name="register")
@click.argument("name", shell_complete=complete_own)
@click.argument("run", required=False, metavar="[RUN]", shell_complete=complete_model)
@click.option("--replace", is_flag=True, help="Give the name to another model.")
@click.option("--remove", is_flag=True, help="Remove NAME; the model file stays.")
@json_option
@click.pass_obj
def command(
    settings: Settings, name: str, run: str | None, replace: bool, remove: bool, as_json: bool
) -> None:
    """Name the model of a RUN, for `zoo predict NAME`, `zoo finetune NAME` and other commands.

    RUN is a run folder or a model file, which stays where it is; a file that has changed since is
    refused. `zoo list --mine` lists the names.
    """
    from zoo.registry.own_models import remove_own_model

    if remove == (run is not None):
        raise UsageError("give RUN, or --remove", f"zoo register {name} RUN")
    if remove:
        removed: dict[str, Any] = asdict(remove_own_model(name))
        print_json(removed) if as_json else print_line(f"removed {name}, of {removed['path']}")
        return
    from zoo.inference.registration import register_own_model

    assert run is not None
    model = register_own_model(name, run, settings.registry(), replace)
    if as_json:
        print_json(asdict(model))
        return
    print_line(f"{name}  {model.path}, sha256 {model.sha256}")
    print_line(f"use   zoo predict {quote(name)} IMAGE...{settings.backbone_options()}")
