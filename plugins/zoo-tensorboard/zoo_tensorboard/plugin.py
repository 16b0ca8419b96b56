"""Observes trainings, and writes each into `tensorboard/` in its run folder.

Every command imports this module; what is heavy comes when a training starts.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import zoo

if TYPE_CHECKING:
    from zoo_tensorboard.board import Board

# zoo tells everything about a training in the thread that trains.
_here = threading.local()


@contextmanager
def _writing(last: bool = False) -> Iterator[Board | None]:
    """Give the log of this thread's training; where it cannot be written, it is given up."""
    board: Board | None = getattr(_here, "board", None)
    try:
        yield board
    except Exception:
        _here.board = None
        if board:
            with suppress(Exception):  # what is raised already is what went wrong
                board.give_up()
        raise
    if last:
        _here.board = None


@zoo.hookimpl
def zoo_before_fit(event: zoo.FitStarted) -> None:
    """Begin the log of a training; nothing is written yet."""
    _here.board = None
    from zoo_tensorboard.board import Board

    _here.board = Board(event)


@zoo.hookimpl
def zoo_on_first_batch(event: zoo.FirstBatchRead) -> None:
    """Write the first batch as a picture."""
    with _writing() as board:
        if board:
            board.first_batch(event)


@zoo.hookimpl
def zoo_after_epoch(event: zoo.EpochEnded) -> None:
    """Write the scalars of an epoch."""
    with _writing() as board:
        if board:
            board.epoch(event)


@zoo.hookimpl
def zoo_after_fit(event: zoo.FitEnded) -> None:
    """Write final metrics and confusion matrices, and end the log."""
    with _writing(last=True) as board:
        if board:
            board.end(event)


@zoo.hookimpl
def zoo_on_error(event: zoo.FitFailed) -> None:
    """End the log of a training that stopped; one without an epoch is taken away."""
    with _writing(last=True) as board:
        if board:
            board.give_up()
