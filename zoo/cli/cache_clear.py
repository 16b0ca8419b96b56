"""`zoo cache clear`."""

from __future__ import annotations

import click

from zoo.cache import remove, select
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
    deleted = size = 0
    for entry in select(what):
        if remove(entry):
            deleted, size = deleted + 1, size + entry.size
        else:
            print_notice(f"zoo: {entry.kind} of {entry.name} skipped: in use by a training")
    print_line(f"deleted {counted(deleted, 'entry')}, {short_size(size)}")
