"""Observing hooks that write `report.html` into the run folder; off with `--no-plugin report`."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from zoo.hookspecs import hookimpl

if TYPE_CHECKING:
    from zoo.events import FirstBatchRead, FitEnded, FitStarted, ResultsCollected
    from zoo.sections import Section

# All hooks of a training are called in the thread that trains.
_local = threading.local()


@hookimpl
def zoo_before_fit(event: FitStarted) -> None:
    """Forget the first batch of an earlier training."""
    _local.first_batch = None


@hookimpl
def zoo_on_first_batch(event: FirstBatchRead) -> None:
    """Draw the first batch."""
    from zoo.reporting.first_batch import draw_batch

    _local.first_batch = draw_batch(event)


@hookimpl
def zoo_report_sections(event: ResultsCollected) -> list[Section]:
    """Add the first batch as the network sees it."""
    batch, _local.first_batch = getattr(_local, "first_batch", None), None
    return [] if batch is None else [batch]


@hookimpl(trylast=True)
def zoo_after_fit(event: FitEnded) -> None:
    """Write the report."""
    from pathlib import Path

    from zoo.reporting.write import write_report

    write_report(Path(event.folder))
