"""What the head costs where features are many: found, read from the disk, and solved for.

    python -m benchmarks.sides.solving fill|solve --images N --out FILE

Features are made up, for two uses of one cache folder: `fill` keeps them, as a training does
that computes them; `solve` finds them again by the digests of as many images, and trains the head
to its optimum.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.sides.networks import CLASSES
from zoo.engine.features.cache import Kept
from zoo.engine.features.store import Shelf
from zoo.engine.probe.logistic import fit_probe
from zoo.engine.probe.phase import Columns

WIDTH = 512  # of resnet18's features, which are kept in bfloat16
APART = 0.12  # how far the classes' means are, for a deviation of 1; some images stay wrong
AT_ONCE = 8192
HEAD = "fc"


def digests(images: int) -> NDArray[np.uint8]:
    """Return as many digests."""
    random = np.random.default_rng(0)
    return random.integers(0, 256, (images, 32), dtype=np.uint8)


def labels(images: int) -> torch.Tensor:
    """Return what class each image is of."""
    return torch.arange(images) % CLASSES


def batches(images: int) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield features, each part with its place."""
    random = torch.Generator().manual_seed(0)
    means = torch.randn(CLASSES, WIDTH, generator=random) * APART
    for first in range(0, images, AT_ONCE):
        place = slice(first, min(first + AT_ONCE, images))
        noise = torch.randn(place.stop - first, WIDTH, generator=random)
        # As activations are: none below 0, and of very different sizes.
        yield place, (means[labels(images)[place]] + noise).relu().to(torch.bfloat16)


def fill(shelf: Shelf, images: int) -> None:
    """Keep the features of all images."""
    keys = digests(images)
    for place, features in batches(images):
        shelf.add([key.tobytes() for key in keys[place]], {HEAD: features})


class _Watch(threading.Thread):
    """Watches this process's own memory: files that are mapped can be dropped at any time."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.most = 0.0
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(0.05):
            lines = Path("/proc/self/status").read_text().splitlines()
            own = next(line.split()[1] for line in lines if line.startswith("RssAnon"))
            self.most = max(self.most, int(own) / 1024)


def solve(shelf: Shelf, images: int) -> dict[str, float]:
    """Find the features of all images, and train the head."""
    watch = _Watch()
    watch.start()
    began = time.perf_counter()
    keys = [key.tobytes() for key in digests(images)]
    rows = shelf.find(keys)[:, None]
    found = time.perf_counter()
    assert (rows >= 0).all()
    kept = Kept(shelf, rows, labels(images), torch.arange(images), torch.device("cpu"))
    probe = fit_probe(Columns(kept, HEAD), kept.labels, CLASSES)
    ended = time.perf_counter()
    watch.over.set()
    watch.join()
    return {
        "find_seconds": round(found - began, 2),
        "seconds": round(ended - found, 2),
        "passes": probe.passes,
        "accuracy": round(sum(probe.accuracy) / len(probe.accuracy), 4),
        "memory_mb": round(watch.most),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("fill", "solve"))
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    with Shelf(f"{asked.images:064}", {"backbone": "made up"}) as shelf:
        if asked.what == "fill":
            fill(shelf, asked.images)
            found: dict[str, float] = {"row_bytes": shelf.row_bytes}
        else:
            found = solve(shelf, asked.images)
    asked.out.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
