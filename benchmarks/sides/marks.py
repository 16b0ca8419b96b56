"""Where a side writes down how far it is, for the process that watches it."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

MARKS = "BENCHMARK_MARKS"
READY, EPOCH, DONE = "ready", "epoch", "done"


def mark(what: str) -> None:
    """Write down that it is so far: READY before the first image is read, EPOCH after each."""
    if place := os.environ.get(MARKS):
        with Path(place).open("a") as file:
            file.write(json.dumps({"mark": what, "at": time.time()}) + "\n")
