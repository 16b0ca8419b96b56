"""Showing how a run goes: notices and epochs as lines on stderr, bars where it is a terminal."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from zoo.events import EpochEnded

Item = TypeVar("Item")

# What `torchrun` tells each process that it starts.
TOLD = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")

# What ends a line, moves a terminal's cursor or turns the direction of writing, and the halves of
# characters that stand for the bytes of a file name that is not UTF-8.
_UNPRINTABLE = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Return a text for people in which nothing breaks a line or steers a terminal.

    Names of files and classes may hold any character; such ones are shown as `\n` or `\x1b`.
    """
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def percent(share: float | None) -> str:
    """Return a share for people: `69.8 %`."""
    return "-" if share is None else f"{100 * share:.1f} %"


def say(text: str) -> None:
    """Say one line on stderr; where that cannot be written, go on without."""
    if sys.stderr is not None:
        # A full disk or a reader that has gone must not cost a training.
        with suppress(OSError):
            print(printable(text), file=sys.stderr, flush=True)


def told_by_torchrun() -> bool:
    """Whether `torchrun` started this process, and others with it."""
    return all(name in os.environ for name in TOLD) and os.environ["WORLD_SIZE"] != "1"


def leading() -> bool:
    """Whether this process speaks for a training: alone, or the first that `torchrun` started."""
    return not told_by_torchrun() or os.environ["RANK"] == "0"


class Progress:
    """Tells a person how a run goes.

    Args:
        quiet: say nothing, as all but the first of several processes do.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet or not leading()

    def notice(self, text: str) -> None:
        """Say one line."""
        if not self.quiet:
            say(text)

    def wrap(self, items: Iterable[Item], total: int, label: str) -> Iterator[Item]:
        """Yield the items, with a bar where stderr is a terminal."""
        from tqdm import tqdm

        hidden = self.quiet or sys.stderr is None or not sys.stderr.isatty()
        return iter(tqdm(items, total=total, desc=label, leave=False, disable=hidden))

    def epoch(self, event: EpochEnded, labels: Mapping[str, str]) -> None:
        """Print one line about an epoch.

        Args:
            event: of the epoch.
            labels: by metric name, how it is called, of those that are shown.
        """
        width = len(str(event.epochs))
        shown = "".join(f"  val {label} {event.metrics[n]:.4f}" for n, label in labels.items())
        self.notice(
            f"{event.phase} {event.epoch:>{width}}/{event.epochs}"
            f"  loss {event.train_loss:.4f}{shown}  {event.seconds:.1f} s"
            f"{'  best' if event.best else ''}"
        )
