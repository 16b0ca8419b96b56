"""Progress marks that a side writes for the watching process."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

MARKS = "BENCHMARK_MARKS"
READY, EPOCH, DONE = "ready", "epoch", "done"


def mark(what: str) -> None:
    """Append a mark: READY before the first image is read, EPOCH after each epoch."""
    if path := os.environ.get(MARKS):
        with Path(path).open("a") as file:
            file.write(json.dumps({"mark": what, "at": time.time()}) + "\n")
