"""`zoo cache clear`."""

from __future__ import annotations

import click

from zoo.cache import remove
from zoo.cli.cache import select, short_size
from zoo.cli.group import ZooCommand
from zoo.cli.output import print_line
from zoo.terminal import say


@click.command(cls=ZooCommand, name="clear")
@click.argument("what", nargs=-1)
def command(what: tuple[str, ...]) -> None:
    """Delete from the cache: WHAT is features, weights, catalogues, downloads or a NAME.

    Without WHAT, all of it. Features that a training reads just now stay.
    """
    gone = size = 0
    for each in select(what):
        if remove(each):
            gone, size = gone + 1, size + each.size
        else:
            say(f"zoo: {each.kind} of {each.name} stay: a training is using them")
    print_line(f"deleted {gone} entries, {short_size(size)}")
