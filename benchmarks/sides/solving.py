"""Cost of solving for a head on many features: look-up, reading from disk, and solving.

    python -m benchmarks.sides.solving fill|solve --images N --out FILE

Features are synthetic, in one cache folder: `fill` stores them like a training that computes them;
`solve` looks them up by the digests of as many images, and solves for the head.
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
from zoo.engine.features.cache import FeatureSet
from zoo.engine.features.store import FeatureStore
from zoo.engine.probe.logistic import fit_probe
from zoo.engine.probe.phase import FeatureColumn

WIDTH = 512  # of resnet18's features, stored in bfloat16
APART = 0.12  # distance of the class means, for a deviation of 1; classes overlap
AT_ONCE = 8192
HEAD = "fc"


def digests(images: int) -> NDArray[np.uint8]:
    """Return random digests."""
    random = np.random.default_rng(0)
    return random.integers(0, 256, (images, 32), dtype=np.uint8)


def labels(images: int) -> torch.Tensor:
    """Return the class of each image."""
    return torch.arange(images) % CLASSES


def batches(images: int) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield parts of the features, each with its slice."""
    random = torch.Generator().manual_seed(0)
    means = torch.randn(CLASSES, WIDTH, generator=random) * APART
    for first in range(0, images, AT_ONCE):
        part = slice(first, min(first + AT_ONCE, images))
        noise = torch.randn(part.stop - first, WIDTH, generator=random)
        # Like activations: non-negative, of varying scale.
        yield part, (means[labels(images)[part]] + noise).relu().to(torch.bfloat16)


def fill(store: FeatureStore, images: int) -> None:
    """Store the features of all images."""
    keys = digests(images)
    for part, features in batches(images):
        store.add([key.tobytes() for key in keys[part]], {HEAD: features})


class _PeakMemory(threading.Thread):
    """Records the peak anonymous memory of this process; mapped files can be evicted."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0.0
        self.stopped = threading.Event()

    def run(self) -> None:
        while not self.stopped.wait(0.05):
            lines = Path("/proc/self/status").read_text().splitlines()
            own = next(line.split()[1] for line in lines if line.startswith("RssAnon"))
            self.peak = max(self.peak, int(own) / 1024)


def solve(store: FeatureStore, images: int) -> dict[str, float]:
    """Look up the features of all images, and solve for the head."""
    watch = _PeakMemory()
    watch.start()
    began = time.perf_counter()
    keys = [key.tobytes() for key in digests(images)]
    rows = store.find(keys)[:, None]
    located = time.perf_counter()
    assert (rows >= 0).all()
    features = FeatureSet(store, rows, labels(images), torch.arange(images), torch.device("cpu"))
    probe = fit_probe(FeatureColumn(features, HEAD), features.targets, CLASSES)
    ended = time.perf_counter()
    watch.stopped.set()
    watch.join()
    return {
        "find_seconds": round(located - began, 2),
        "seconds": round(ended - located, 2),
        "passes": probe.passes,
        "accuracy": round(sum(probe.accuracy) / len(probe.accuracy), 4),
        "memory_mb": round(watch.peak),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("fill", "solve"))
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with FeatureStore(f"{options.images:064}", {"backbone": "synthetic"}) as store:
        if options.what == "fill":
            fill(store, options.images)
            result: dict[str, float] = {"row_bytes": store.row_bytes}
        else:
            result = solve(store, options.images)
    options.out.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
