"""Measure the rate of predictions of many files against the training's own pass for features.

    uv run python benchmarks/predict.py [--work DIR] [--rounds 5] [--images 160]

Both run the same network, in one process, on the same JPEGs of 500 x 375 pixels: the pass computes
the features that a training of the head caches, `stream` the predictions that `zoo predict` prints.
Interleaved, after a warm-up. Prints a table, and writes `predict.json`: medians of images per
second, and of images per second of CPU time, which depends less on what else the machine does.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.harness.bench import load_results, write_results
from benchmarks.images import NOISE_STD, SIZE, WORK
from zoo.data.all_images import AllImages
from zoo.data.split import FileSplit
from zoo.engine.runtime.allocator import retain_freed_memory
from zoo.inference.embed import embedding
from zoo.inference.loading import load_pretrained
from zoo.inference.predictor import Predictor
from zoo.registry.registry import load_registry
from zoo.tasks.classification.data.sources import EMBEDDED
from zoo.terminal import Progress

RESULTS = Path(__file__).with_suffix(".json")
NETWORKS = ("lite0",)


def write_files(work: Path, count: int) -> list[Path]:
    """Write JPEGs of the embedded drawings, with noise like a sensor's, and return their paths."""
    folder = work / f"predict-{count}"
    folder.mkdir(parents=True, exist_ok=True)
    sources = sorted(EMBEDDED.rglob("*.jpg"))
    for number in range(count):
        path = folder / f"{number:04}.jpg"
        if not path.exists():
            with Image.open(sources[number % len(sources)]) as image:
                pixels = np.asarray(image.convert("RGB").resize(SIZE, Image.Resampling.BICUBIC))
            noise = np.random.default_rng(number).normal(0, NOISE_STD, pixels.shape)
            noisy = Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))
            noisy.save(path, "JPEG", quality=90)
    return sorted(folder.iterdir())


def compute_features(model: Predictor, paths: list[Path]) -> None:
    """Run the pass of a training of the head, into an empty cache."""
    names = tuple(path.name for path in paths)
    split = FileSplit("all", paths[0].parent, names, (0,) * len(names))
    images = AllImages("predict", (split,), ())
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        with embedding(model, images, Progress(quiet=True), 1 << 40) as embedded:
            assert embedded.forwards >= len(paths)


def predict(model: Predictor, paths: list[Path]) -> None:
    """Predict the files."""
    assert sum("predictions" in answer for answer in model.stream(paths)) == len(paths)


def measure(model: Predictor, paths: list[Path], rounds: int) -> dict[str, Any]:
    """Time both, interleaved; return medians of images per second and their ratios."""
    runs: dict[str, Callable[[Predictor, list[Path]], None]] = {
        "features": compute_features,
        "predict": predict,
    }
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in runs}
    for number in range(rounds + 1):
        for name, run in runs.items():
            model.network.forwards = 0
            began = time.perf_counter(), time.process_time()
            run(model, paths)
            if number:  # the first round is a warm-up
                ended = time.perf_counter(), time.process_time()
                seconds[name].append((ended[0] - began[0], ended[1] - began[1]))
    result: dict[str, Any] = {}
    for index, label in enumerate(("images_per_second", "images_per_cpu_second")):
        rates = {
            name: len(paths) / statistics.median(each[index] for each in times)
            for name, times in seconds.items()
        }
        result[label] = {name: round(rate, 1) for name, rate in rates.items()}
        result[f"{label}_ratio"] = round(rates["predict"] / rates["features"], 3)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=WORK, help="folder for generated files")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=160)
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of results")
    options = parser.parse_args()
    paths = write_files(options.work.resolve(), options.images)
    settings = {"images": options.images, "rounds": options.rounds}
    results = load_results(options.out, True, {"networks": {}}, **settings)
    registry = load_registry()
    with retain_freed_memory():
        for name in NETWORKS:
            model = load_pretrained(name, registry, device="cpu")
            results["networks"][name] = measure(model, paths, options.rounds)
    write_results(results, options.out)
    print("| network | features | predict | ratio | ratio by CPU time |\n|---|---|---|---|---|")
    for name, each in results["networks"].items():
        rates = each["images_per_second"]
        ratios = each["images_per_second_ratio"], each["images_per_cpu_second_ratio"]
        print(f"| {name} | {rates['features']} | {rates['predict']} | {ratios[0]} | {ratios[1]} |")


if __name__ == "__main__":
    main()
