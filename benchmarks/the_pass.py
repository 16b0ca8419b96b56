"""Show what one pass of images through a frozen network spends its time on, on the CPU.

    uv run python benchmarks/the_pass.py [--work DIR] [--rounds 5] [--images 320]

For each network, in turn and several times over: reading alone, a forward pass alone, with memory
that is given back after each batch and with memory that is kept, and both together, in turns and
with a thread that reads beside the forward. Then the operations that the forward pass spends most
of its time in. Prints a table and writes `the_pass.json` beside this file.
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
from benchmarks import pictures
from benchmarks.sides.bench import keep, start
from benchmarks.sides.networks import NETWORKS
from zoo.data.loader import Batch, load_batches
from zoo.data.split import Split
from zoo.engine.features.cache import CPU_BATCH
from zoo.engine.runtime.allocator import retain_freed_memory
from zoo.engine.runtime.device import reader_threads, resolve_precision
from zoo.engine.runtime.network import Network
from zoo.tasks.classification.data.sources import open_data

RESULTS = Path(__file__).with_suffix(".json")
CPU = torch.device("cpu")
# Operations that take less than this share of a forward pass are left out.
LEAST = 0.02


class Pass:
    """One network, and the images that go through it.

    Args:
        name: of the network; its weights are random.
        split: has the images.
        images: how many of them.
    """

    def __init__(self, name: str, split: Split, images: int) -> None:
        backbone = zoo.get(name)
        precision, _ = resolve_precision("auto", CPU)
        module = backbone.build(classes=10, weights=None).eval()
        self.network = Network(module, backbone.heads, backbone.preprocess, CPU, precision)
        self.split, self.images = split, images
        self.held: list[Tensor] = []
        self.held = [batch.images for batch in self.read()]

    def read(self, threads: int | None = None, ahead: int = 0) -> Iterator[Batch]:
        """Yield the images as batches."""
        threads = reader_threads(CPU)[0] if threads is None else threads
        step = len(self.split) // self.images  # some of every class
        order = range(0, step * self.images, step)
        preprocess = self.network.preprocess
        yield from load_batches(
            self.split, preprocess, order, CPU_BATCH, threads=threads, ahead=ahead, digest=True
        )

    @torch.no_grad()
    def forward(self, batches: Iterator[Tensor]) -> None:
        """Run batches through the network."""
        for images in batches:
            self.network.logits(images, pad_to=CPU_BATCH)

    def ways(self) -> dict[str, tuple[Callable[[], Any], bool]]:
        """Return what is timed by name, and whether freed memory is kept meanwhile."""
        return {
            "decoding": (lambda: list(self.read()), True),
            "forward, memory returned": (lambda: self.forward(iter(self.held)), False),
            "forward": (lambda: self.forward(iter(self.held)), True),
            "alternating": (lambda: self.forward(b.images for b in self.read()), True),
            "concurrent": (
                lambda: self.forward(b.images for b in self.read(threads=1, ahead=2)),
                True,
            ),
        }

    def operations(self) -> dict[str, float]:
        """Return the share of the forward pass that each operation takes by itself."""
        with retain_freed_memory():
            self.forward(iter(self.held[:2]))
            with profile(activities=[ProfilerActivity.CPU]) as profiled:
                self.forward(iter(self.held))
        found = {row.key: row.self_cpu_time_total for row in profiled.key_averages()}
        whole = sum(found.values())
        shares = {name: round(each / whole, 3) for name, each in found.items()}
        largest = sorted(shares, key=lambda name: -shares[name])
        return {name: shares[name] for name in largest if shares[name] >= LEAST}


def measure(one: Pass, rounds: int) -> dict[str, Any]:
    """Time each way several times, in turn; return medians in images per second, and shares."""
    seconds: dict[str, list[float]] = {name: [] for name in one.ways()}
    for number in range(rounds + 1):
        for name, (run, kept) in one.ways().items():
            with retain_freed_memory() if kept else contextlib.nullcontext():
                began = time.perf_counter()
                run()
                if number:  # the first is for practice
                    seconds[name].append(time.perf_counter() - began)
    rates = {name: round(one.images / statistics.median(all_)) for name, all_ in seconds.items()}
    return {"images_per_second": rates, "operations": one.operations()}


def table(results: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of a table, an empty one, and those of a list."""
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
    parser.add_argument("--work", type=Path, default=pictures.WORK, help="for all that is made")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=320)
    parser.add_argument("--package", type=Path, help=f"the file of {pictures.PACKAGE}")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the results")
    asked = parser.parse_args()
    data = pictures.make(asked.work.resolve(), pictures.EACH, asked.package)
    split = open_data(data).splits["train"]
    fixed = {"images": asked.images, "rounds": asked.rounds}
    results = start(asked.out, True, {"networks": {}}, **fixed)
    for name in NETWORKS:
        results["networks"][name] = measure(Pass(name, split, asked.images), asked.rounds)
    keep(results, asked.out)
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
