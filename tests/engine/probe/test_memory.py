"""Memory of a linear probe on a file of features."""

import os
import subprocess
import sys

import numpy as np
import pytest

MEASURE = """
import sys, threading, time
import numpy as np, torch
from zoo.engine.probe import standardize as standard
from zoo.engine.probe.logistic import fit_probe

def private():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon")) >> 10

torch.set_num_threads(1)
standard.CACHE_BYTES, standard.CHUNK_BYTES = 1 << 20, 1 << 20
rows = int(sys.argv[2])
features = np.memmap(sys.argv[1], np.float16, "r", shape=(rows, 256))
labels, most, over = torch.arange(rows) % 2, [0], threading.Event()
few = rows // 6
fit_probe(features[:few], labels[:few], 2, strengths=[1e-4], folds=2)
before = private()

def watch():
    while not over.wait(0.002):
        most[0] = max(most[0], private())

watcher = threading.Thread(target=watch)
watcher.start()
probe = fit_probe(features, labels, 2, strengths=[1e-4], folds=2)
over.set()
watcher.join()
print(most[0] - before, float(probe.weight.abs().max()))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_fit_probe_memory_is_independent_of_rows(tmp_path):
    rows, width = 60_000, 256
    generator = np.random.default_rng(0)
    with (tmp_path / "features").open("wb") as file:
        for start in range(0, rows, 10_000):
            part = generator.standard_normal((10_000, width), np.float32)
            part[:, 0] += (np.arange(start, start + 10_000) % 2) * 1.0
            part.astype(np.float16).tofile(file)
    size = (tmp_path / "features").stat().st_size >> 20
    command = [sys.executable, "-c", MEASURE, str(tmp_path / "features"), str(rows)]
    # Freed memory is released at once, and is not measured as used.
    surroundings = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=surroundings)
    grown, largest = (float(part) for part in done.stdout.split())
    assert largest > 0.1  # it learned
    # Of six times the images. The file alone has 29 MB, and a float32 copy 58; labels, folds and
    # shares have 3.
    assert size > 28
    assert grown < 12
