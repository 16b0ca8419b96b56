"""Showing how a run goes: notices and epochs as lines on stderr, bars where it is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import TypeVar

from zoo.hookspecs import EpochEnded

Item = TypeVar("Item")


class Progress:
    """Tells a person how a run goes.

    Args:
        quiet: say nothing.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet

    def notice(self, text: str) -> None:
        """Say one line."""
        if not self.quiet:
            print(text, file=sys.stderr, flush=True)

    def wrap(self, items: Iterable[Item], total: int, label: str) -> Iterator[Item]:
        """Yield the items, with a bar where stderr is a terminal."""
        from tqdm import tqdm

        hidden = self.quiet or not sys.stderr.isatty()
        return iter(tqdm(items, total=total, desc=label, leave=False, disable=hidden))

    def epoch(self, event: EpochEnded) -> None:
        """Say one line about an epoch."""
        width = len(str(event.epochs))
        metrics = event.metrics
        self.notice(
            f"{event.phase} {event.epoch:>{width}}/{event.epochs}"
            f"  loss {event.train_loss:.4f}  val loss {metrics['loss']:.4f}"
            f"  val top-1 {metrics['top1']:.4f}  {event.seconds:.1f} s"
            f"{'  best' if event.best else ''}"
        )
