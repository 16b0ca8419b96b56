"""Measure the fit of a head on many cached features: lookup, reads from disk, and solver.

    python -m benchmarks.harness.fit_probe fill|solve --images N --out FILE

On synthetic features, in two processes that share a cache folder: `fill` stores them as a training
does, `solve` looks them up by the digests of the images, and fits the head to its optimum.
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

from benchmarks.harness.networks import CLASSES
from zoo.engine.features.cache import FeatureSet
from zoo.engine.features.store import FeatureStore
from zoo.engine.probe.logistic import fit_probe
from zoo.engine.probe.phase import FeatureColumn

WIDTH = 512  # of resnet18's features, stored in bfloat16
MEAN_SCALE = 0.12  # of the class means, in standard deviations; classes overlap
CHUNK = 8192
HEAD = "fc"


def random_digests(images: int) -> NDArray[np.uint8]:
    """Return a digest for each image, `[images, 32]`."""
    random = np.random.default_rng(0)
    return random.integers(0, 256, (images, 32), dtype=np.uint8)


def labels_of(images: int) -> torch.Tensor:
    """Return the class index of each image."""
    return torch.arange(images) % CLASSES


def feature_chunks(images: int) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield slices of the images with their features."""
    random = torch.Generator().manual_seed(0)
    means = torch.randn(CLASSES, WIDTH, generator=random) * MEAN_SCALE
    for first in range(0, images, CHUNK):
        rows = slice(first, min(first + CHUNK, images))
        noise = torch.randn(rows.stop - first, WIDTH, generator=random)
        # Like activations: non-negative, of different magnitudes.
        yield rows, (means[labels_of(images)[rows]] + noise).relu().to(torch.bfloat16)


def fill(store: FeatureStore, images: int) -> None:
    """Store the features of all images."""
    digests = random_digests(images)
    for rows, features in feature_chunks(images):
        store.add([digest.tobytes() for digest in digests[rows]], {HEAD: features})


class _MemoryPoll(threading.Thread):
    """Records the peak of anonymous memory; mapped files can be evicted at any time."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = 0.0
        self.done = threading.Event()

    def run(self) -> None:
        while not self.done.wait(0.05):
            lines = Path("/proc/self/status").read_text().splitlines()
            anonymous = next(line.split()[1] for line in lines if line.startswith("RssAnon"))
            self.peak = max(self.peak, int(anonymous) / 1024)


def solve(store: FeatureStore, images: int) -> dict[str, float]:
    """Look up the features of all images, and fit the head."""
    poll = _MemoryPoll()
    poll.start()
    began = time.perf_counter()
    digests = [digest.tobytes() for digest in random_digests(images)]
    rows = store.find(digests)[:, None]
    looked_up = time.perf_counter()
    assert (rows >= 0).all()
    labels = labels_of(images)
    features = FeatureSet(store, rows, labels, torch.arange(images), torch.device("cpu"))
    probe = fit_probe(FeatureColumn(features, HEAD), labels, CLASSES)
    ended = time.perf_counter()
    poll.done.set()
    poll.join()
    return {
        "find_seconds": round(looked_up - began, 2),
        "seconds": round(ended - looked_up, 2),
        "passes": probe.passes,
        "accuracy": round(sum(probe.accuracy) / len(probe.accuracy), 4),
        "memory_mb": round(poll.peak),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=("fill", "solve"))
    parser.add_argument("--images", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    with FeatureStore(f"{options.images:064}", {"backbone": "synthetic"}) as store:
        if options.step == "fill":
            fill(store, options.images)
            result: dict[str, float] = {"row_bytes": store.row_bytes}
        else:
            result = solve(store, options.images)
    options.out.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
