"""Measure a pass of images through a frozen network on the CPU, and profile its forward.

    uv run python benchmarks/forward_pass.py [--work DIR] [--rounds 5] [--images 320]

For each network, interleaved: decoding alone; the forward pass alone, with freed memory returned to
the system and with freed memory retained; both, alternating and with a concurrent decoding thread.
Then the operations with the largest share of the forward pass. Prints a table and writes
`forward_pass.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

sys.path.insert(0, str(Path(__file__).parents[1]))

import zoo
from benchmarks import images
from benchmarks.harness.bench import load_results, write_results
from benchmarks.harness.networks import NETWORKS
from zoo.data.loader import Batch, load_batches
from zoo.data.split import Split
from zoo.engine.features.cache import CPU_BATCH
from zoo.engine.runtime.allocator import retain_freed_memory
from zoo.engine.runtime.device import reader_threads, resolve_precision
from zoo.engine.runtime.network import Network
from zoo.tasks.classification.data.sources import open_data
from zoo.tasks.classification.task import ImageClassification

RESULTS = Path(__file__).with_suffix(".json")
CPU = torch.device("cpu")
# Minimum share of the forward pass of a listed operation.
MIN_SHARE = 0.02


class Pass:
    """A network with random weights, and the images of the pass.

    Args:
        name: of the network.
        split: to read images from.
        count: number of images.
    """

    def __init__(self, name: str, split: Split, count: int) -> None:
        backbone = zoo.get(name)
        precision, _ = resolve_precision("auto", CPU)
        module = backbone.build(classes=10, weights=None).eval()
        task = ImageClassification()
        self.network = Network(module, backbone.heads, backbone.preprocess, CPU, precision, task)
        self.transform = task.transform(backbone.preprocess)
        self.split, self.count = split, count
        self.batches = [batch.inputs for batch in self.read()]

    def read(self, threads: int | None = None, ahead: int = 0) -> Iterator[Batch]:
        """Decode the images in batches."""
        threads = reader_threads(CPU)[0] if threads is None else threads
        step = len(self.split) // self.count  # images of every class
        order = range(0, step * self.count, step)
        yield from load_batches(
            self.split, self.transform, order, CPU_BATCH, threads=threads, ahead=ahead, digest=True
        )

    @torch.no_grad()
    def forward(self, batches: Iterator[Tensor]) -> None:
        """Run batches through the network."""
        for inputs in batches:
            self.network.forward(inputs, pad_to=CPU_BATCH)

    def variants(self) -> dict[str, tuple[Callable[[], Any], bool]]:
        """Return the function to time by name, and whether freed memory is retained."""
        return {
            "decoding": (lambda: list(self.read()), True),
            "forward, memory returned": (lambda: self.forward(iter(self.batches)), False),
            "forward": (lambda: self.forward(iter(self.batches)), True),
            "alternating": (lambda: self.forward(b.inputs for b in self.read()), True),
            "concurrent": (
                lambda: self.forward(b.inputs for b in self.read(threads=1, ahead=2)),
                True,
            ),
        }

    def operations(self) -> dict[str, float]:
        """Return the share of each operation in the forward pass, without its children."""
        with retain_freed_memory():
            self.forward(iter(self.batches[:2]))
            with profile(activities=[ProfilerActivity.CPU]) as profiled:
                self.forward(iter(self.batches))
        times = {row.key: row.self_cpu_time_total for row in profiled.key_averages()}
        total = sum(times.values())
        shares = {name: round(each / total, 3) for name, each in times.items()}
        largest = sorted(shares, key=lambda name: -shares[name])
        return {name: shares[name] for name in largest if shares[name] >= MIN_SHARE}


def measure(one: Pass, rounds: int) -> dict[str, Any]:
    """Time the variants, interleaved; return medians in images per second, and the profile."""
    seconds: dict[str, list[float]] = {name: [] for name in one.variants()}
    for number in range(rounds + 1):
        for name, (run, retain) in one.variants().items():
            with retain_freed_memory() if retain else contextlib.nullcontext():
                began = time.perf_counter()
                run()
                if number:  # the first round is a warm-up
                    seconds[name].append(time.perf_counter() - began)
    rates = {name: round(one.count / statistics.median(each)) for name, each in seconds.items()}
    return {"images_per_second": rates, "operations": one.operations()}


def table(results: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the table of rates, and of the list of operations."""
    networks = results["networks"]
    yield f"| images per second | {' | '.join(networks)} |"
    yield "|---" * (len(networks) + 1) + "|"
    for name in next(iter(networks.values()))["images_per_second"]:
        rates = [str(each["images_per_second"][name]) for each in networks.values()]
        yield f"| {name} | {' | '.join(rates)} |"
    yield ""
    for network, each in networks.items():
        for name, share in each["operations"].items():
            yield f"- {network}: {name.removeprefix('aten::')} {share:.0%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=images.WORK, help="folder for generated files")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--package", type=Path, help=f"file of {images.PACKAGE}")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of results")
    options = parser.parse_args()
    data = images.write_images(options.work.resolve(), images.PER_CLASS, options.package)
    split = open_data(data).splits["train"]
    settings = {"images": options.images, "rounds": options.rounds}
    results = load_results(options.out, True, {"networks": {}}, **settings)
    for name in NETWORKS:
        results["networks"][name] = measure(Pass(name, split, options.images), options.rounds)
    write_results(results, options.out)
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
