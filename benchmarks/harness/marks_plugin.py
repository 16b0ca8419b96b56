"""Plugin of zoo that marks the start, each epoch and the end of a training."""

from __future__ import annotations

from typing import Any

import zoo
from benchmarks.harness.marks import DONE, EPOCH, READY, mark


@zoo.hookimpl
def zoo_before_fit(event: Any) -> None:
    mark(READY)


@zoo.hookimpl
def zoo_after_epoch(event: Any) -> None:
    mark(EPOCH)


@zoo.hookimpl
def zoo_after_fit(event: Any) -> None:
    mark(DONE)
