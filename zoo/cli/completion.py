"""`zoo completion`."""

from __future__ import annotations

import click

from zoo.cli.group import ZooCommand
from zoo.cli.output import echo

SHELLS = {
    "bash": 'eval "$(zoo completion bash)"  # in ~/.bashrc',
    "zsh": 'eval "$(zoo completion zsh)"  # in ~/.zshrc, after compinit',
    "fish": "zoo completion fish | source  # in ~/.config/fish/config.fish",
}


@click.command(
    cls=ZooCommand,
    name="completion",
    epilog="\b\n" + "\n".join(SHELLS.values()),
)
@click.argument("shell", type=click.Choice(list(SHELLS)))
def command(shell: str) -> None:
    """Print the script that completes zoo in a SHELL: bash 4.4 or later, zsh or fish.

    Commands, options and their values, backbones, tags of weights, runs and registered
    models are completed. To enable it, add the line of your shell:
    """
    from click.shell_completion import get_completion_class

    from zoo.cli.group import zoo_group

    kind = get_completion_class(shell)
    assert kind is not None
    completion = kind(zoo_group, {}, "zoo", "_ZOO_COMPLETE")
    # Not `source()`, which starts bash to check its version.
    template = kind.source_template
    if shell == "fish":  # click's script cuts a summary at its first comma
        template = template.replace('string split ","', 'string split -m 1 ","')
    echo(template % completion.source_vars())
