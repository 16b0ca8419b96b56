"""`zoo cache clear`."""

from __future__ import annotations

import click

from zoo.cache import clear, select
from zoo.cli.cache import short_size
from zoo.cli.complete import complete_cached
from zoo.cli.group import ZooCommand
from zoo.cli.output import print_line
from zoo.errors import counted
from zoo.terminal import print_notice


@click.command(cls=ZooCommand, name="clear")
@click.argument("what", nargs=-1, shell_complete=complete_cached)
def command(what: tuple[str, ...]) -> None:
    """Delete cache entries. WHAT is a kind or a NAME that `zoo cache` lists.

    Without WHAT, delete all of them. Features in use by a training are skipped.
    """
    cleared = clear(select(what))
    for entry in cleared.used:
        print_notice(f"zoo: {entry.kind} of {entry.name} skipped: in use by a training")
    size = sum(entry.size for entry in cleared.deleted)
    print_line(f"deleted {counted(len(cleared.deleted), 'entry')}, {short_size(size)}")
    if cleared.problem is not None:
        raise cleared.problem
