"""Measure the rate of reading JPEGs, against an earlier version of zoo.

    git worktree add /tmp/earlier 0773531
    uv run python benchmarks/reading.py --earlier /tmp/earlier [--work DIR] [--rounds 5]

Reading is all that happens to an image before the network: open, decode, resize, crop, collate. The
images are those of `images.py`, 2,400 JPEGs of 500 x 375 pixels, without noise and with the noise
of a photograph, which decode in different times. Each version has its own process, with one thread;
rounds are interleaved, after a warm-up. Prints a table, and writes `reading.json`: medians of
images per second, and of images per second of CPU time, which is per core and depends less on what
else the machine does.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.harness.bench import ROOT, load_results, write_results
from benchmarks.harness.served import ask, serving
from benchmarks.images import NOISE_STD, SUMMARY, WORK, write_images

RESULTS = Path(__file__).with_suffix(".json")
INTERPOLATIONS = ("bilinear", "bicubic")
NOISES = {"drawings": 0.0, "photographs": NOISE_STD}
# Runs in either version: reads all images for each interpolation that it is sent.
READER = """
import sys, time
from pathlib import Path
import torch
from zoo.data.dataset import SampleTransform
from zoo.data.loader import load_batches
from zoo.data.split import FileSplit
from zoo.spec import Preprocess

torch.set_num_threads(1)
root = Path(sys.argv[1])
paths = tuple(sorted(str(path.relative_to(root)) for path in root.rglob("*.jpg")))
split = FileSplit("all", root, paths, (0,) * len(paths))
for line in sys.stdin:
    transform = SampleTransform(Preprocess(224, resize=256, interpolation=line.strip()))
    began = time.perf_counter(), time.process_time()
    batches = load_batches(split, transform, range(len(split)), 32, threads=1, ahead=0)
    assert sum(map(len, batches)) == len(split)
    print(time.perf_counter() - began[0], time.process_time() - began[1], flush=True)
"""


def measure(versions: dict[str, Path], images: Path, count: int, rounds: int) -> dict[str, Any]:
    """Time the versions, interleaved; return medians of images per second and their ratios."""
    results: dict[str, Any] = {}
    with (
        serving(READER, versions["earlier"], str(images)) as earlier,
        serving(READER, versions["now"], str(images)) as now,
    ):
        processes = {"earlier": earlier, "now": now}
        for interpolation in INTERPOLATIONS:
            times: dict[str, list[tuple[float, float]]] = {name: [] for name in processes}
            for number in range(rounds + 1):
                for name, process in processes.items():
                    seconds = ask(process, interpolation)
                    if number:  # the first round is a warm-up
                        times[name].append(seconds)
            result: dict[str, Any] = {}
            for index, label in enumerate(("images_per_second", "images_per_cpu_second")):
                rates = {
                    name: count / median(each[index] for each in times[name]) for name in times
                }
                result[label] = {name: round(rate, 1) for name, rate in rates.items()}
                result[f"{label}_ratio"] = round(rates["now"] / rates["earlier"], 2)
            results[interpolation] = result
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--earlier", type=Path, required=True, help="folder of the earlier version")
    parser.add_argument("--work", type=Path, default=WORK, help="folder for generated files")
    parser.add_argument("--package", type=Path, help="file of the Debian package of the drawings")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of results")
    options = parser.parse_args()
    work = options.work.resolve()
    folders = {
        kind: write_images(work, package=options.package, noise=noise)
        for kind, noise in NOISES.items()
    }
    count = sum(1 for _ in folders["drawings"].rglob("*.jpg"))
    settings = {"images": count, "rounds": options.rounds, "threads": 1}
    results = load_results(options.out, True, {}, **settings)
    versions = {"earlier": options.earlier.resolve(), "now": ROOT}
    print("| images | interpolation | earlier | now | ratio | by CPU time |")
    print("|---|---|---|---|---|---|")
    for kind, folder in folders.items():
        size = json.loads((folder / SUMMARY).read_text())["mean_bytes"]
        measured = measure(versions, folder, count, options.rounds)
        results[kind] = {"mean_bytes": size, "interpolations": measured}
        write_results(results, options.out)
        for name, each in measured.items():
            rates = each["images_per_second"]
            ratios = each["images_per_second_ratio"], each["images_per_cpu_second_ratio"]
            row = (kind, name, rates["earlier"], rates["now"], *ratios)
            print("| " + " | ".join(map(str, row)) + " |", flush=True)


if __name__ == "__main__":
    main()
