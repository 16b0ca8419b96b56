"""Observing hooks that write each training to `tensorboard/` in its run folder.

Every command imports this module; heavy modules are imported when a training starts.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import zoo

if TYPE_CHECKING:
    from zoo_tensorboard.writer import TrainingWriter

# All hooks of a training are called in the thread that trains.
_local = threading.local()


@contextmanager
def _current_writer(last: bool = False) -> Iterator[TrainingWriter | None]:
    """Yield the writer of this thread's training, and abort it on an exception.

    Args:
        last: whether this is the last event of the training.
    """
    writer: TrainingWriter | None = getattr(_local, "writer", None)
    try:
        yield writer
    except Exception:
        _local.writer = None
        if writer:
            with suppress(Exception):  # the first exception is the cause
                writer.abort()
        raise
    if last:
        _local.writer = None


@zoo.hookimpl
def zoo_before_fit(event: zoo.FitStarted) -> None:
    """Create the writer of a training; no file is written yet."""
    _local.writer = None
    from zoo_tensorboard.writer import TrainingWriter

    _local.writer = TrainingWriter(event)


@zoo.hookimpl
def zoo_on_first_batch(event: zoo.FirstBatchRead) -> None:
    """Write the first batch as an image."""
    with _current_writer() as writer:
        if writer:
            writer.first_batch(event)


@zoo.hookimpl
def zoo_after_epoch(event: zoo.EpochEnded) -> None:
    """Write the scalars of an epoch."""
    with _current_writer() as writer:
        if writer:
            writer.epoch(event)


@zoo.hookimpl
def zoo_after_fit(event: zoo.FitEnded) -> None:
    """Write final metrics and confusion matrices, and close the log."""
    with _current_writer(last=True) as writer:
        if writer:
            writer.end(event)


@zoo.hookimpl
def zoo_on_error(event: zoo.FitFailed) -> None:
    """Close the log of a failed training; delete it if it has no epoch."""
    with _current_writer(last=True) as writer:
        if writer:
            writer.abort()
