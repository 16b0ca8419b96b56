"""Progress output on stderr: notices and epochs as lines, and bars on a terminal."""

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

# The environment variables that `torchrun` sets in each process.
TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")

# Control and bidirectional characters but the newline, and surrogates, which encode the bytes of
# file names that are not UTF-8.
_CONTROLS = (
    r"\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069"
    r"\ud800-\udfff"
)
_UNPRINTABLE = rf"[\n{_CONTROLS}]"
_UNPRINTABLE_IN_JSON = rf"[{_CONTROLS}]"  # whose newlines are those between items


def printable(text: str) -> str:
    r"""Escape line breaks and control characters, as `\n` or `\x1b`.

    Names of files and classes may contain any character.
    """
    if text.isprintable():  # almost always, and faster than the expression
        return text
    return re.sub(_UNPRINTABLE, lambda match: match[0].encode("unicode_escape").decode(), text)


def printable_json(text: str) -> str:
    """Escape the control characters of JSON that a terminal would interpret; its value is the same.

    Args:
        text: JSON, which escapes those below U+0020 itself.
    """
    if text.isprintable():
        return text
    return re.sub(_UNPRINTABLE_IN_JSON, lambda match: f"\\u{ord(match[0]):04x}", text)


def percent(fraction: float | None) -> str:
    """Format a fraction as `69.8 %`; None as `-`."""
    return "-" if fraction is None else f"{100 * fraction:.1f} %"


def print_notice(text: str) -> None:
    """Print one line on stderr, ignoring failed writes."""
    if sys.stderr is not None:
        # A full disk or a closed pipe must not stop a training.
        with suppress(OSError):
            # In one write, so that an interrupt leaves no line without its end.
            print(f"{printable(text)}\n", end="", file=sys.stderr, flush=True)


def started_by_torchrun() -> bool:
    """Whether `torchrun` started this process as one of several."""
    return all(name in os.environ for name in TORCHRUN) and os.environ["WORLD_SIZE"] != "1"


def is_rank_zero() -> bool:
    """Whether this process writes the output of a training: rank 0, or the only process."""
    return not started_by_torchrun() or os.environ["RANK"] == "0"


class Progress:
    """Print the progress of a run.

    Args:
        quiet: print nothing, as all ranks but 0.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet or not is_rank_zero()

    def notice(self, text: str) -> None:
        """Print one line."""
        if not self.quiet:
            print_notice(text)

    def shows_bars(self) -> bool:
        """Whether progress bars are shown: where stderr is a terminal."""
        return not self.quiet and sys.stderr is not None and sys.stderr.isatty()

    def wrap(self, items: Iterable[Item], total: int | None, label: str) -> Iterator[Item]:
        """Yield the items, with a progress bar where stderr is a terminal.

        Args:
            items: to yield.
            total: their number; None if unknown.
            label: of the bar.
        """
        from tqdm import tqdm

        hidden = not self.shows_bars()
        return iter(tqdm(items, total=total, desc=label, leave=False, disable=hidden))

    def epoch(self, event: EpochEnded, labels: Mapping[str, str]) -> None:
        """Print one line for an epoch.

        Args:
            event: of the epoch.
            labels: by name of each metric to print.
        """
        width = len(str(event.epochs))
        shown = labels.items() if event.metrics else ()
        metrics = "".join(f"  val {label} {event.metrics[name]:.4f}" for name, label in shown)
        self.notice(
            f"{event.phase} {event.epoch:>{width}}/{event.epochs}"
            f"  loss {event.train_loss:.4f}{metrics}  {event.seconds:.1f} s"
            f"{'  best' if event.best and event.metrics else ''}"
        )
