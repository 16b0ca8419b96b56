"""`zoo push`."""

from __future__ import annotations

import click

from zoo.cli.complete import complete_model
from zoo.cli.group import ComputingCommand, Settings
from zoo.cli.options import json_option
from zoo.cli.output import print_json, print_line


@click.command(cls=ComputingCommand, name="push", needs="zoo.inference.loading")
@click.argument("model", shell_complete=complete_model)
@click.argument("repository", metavar="REPO")
@click.option("--private", is_flag=True, help="Make a new repository private.")
@json_option
@click.pass_obj
def command(settings: Settings, model: str, repository: str, private: bool, as_json: bool) -> None:
    """Push MODEL to the Hugging Face hub as REPO, such as OWNER/NAME.

    MODEL is a run folder, a model file, or the name of a registered model. `zoo predict hf:REPO`
    uses it, and so do timm and transformers where timm has the network.
    """
    from zoo.inference.export.push import push

    result = push(model, repository, settings.registry(), private)
    if as_json:
        print_json(result)
        return
    print_line(f"pushed {', '.join(result['files'])} to {result['url']}")
    if result["not_for_timm_because"]:
        print_line(f"       for zoo only: {result['not_for_timm_because']}")
    print_line(
        f"use    zoo predict hf:{result['repository']} IMAGE...{settings.backbone_options()}"
    )
