"""Measure lower bounds for training a head: decoding all images, and a bare forward pass.

    python -m benchmarks.harness.lower_bounds decode|forward|both ... --out FILE

`decode` reads and prepares images as zoo does, in one process per core, and discards them.
`forward` runs images from memory, in the fastest precision and memory format of this machine; freed
memory is retained between batches, as in zoo.
`both` decodes and runs the forward pass concurrently, with the fastest number of workers.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import zoo
from benchmarks.harness.networks import BATCH, NETWORKS, build_with_new_head, choose_device
from zoo.data.transforms import normalize, prepare_source
from zoo.engine.runtime.allocator import retain_freed_memory
from zoo.spec import Preprocess

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
TRIAL_BATCHES = 4


@dataclass(frozen=True)
class PreparedImages(Dataset[Tensor]):
    """Images as zoo prepares them, `[channels, height, width]` uint8."""

    paths: list[Path]
    preprocess: Preprocess

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return prepare_source(self.paths[index], self.preprocess)


def _one_thread() -> None:
    torch.set_num_threads(1)


def _prepare(task: tuple[Path, Preprocess]) -> None:
    prepare_source(*task)


def time_decoding(images: PreparedImages, workers: int) -> dict[str, Any]:
    """Time the decoding of all images in started processes."""
    tasks = [(path, images.preprocess) for path in images.paths]
    with multiprocessing.Pool(workers, initializer=_one_thread) as pool:
        pool.map(_prepare, tasks[:BATCH], chunksize=1)
        began = time.perf_counter()
        for _ in pool.imap_unordered(_prepare, tasks, chunksize=8):
            pass
        return {"seconds": time.perf_counter() - began, "workers": workers}


class BareForward:
    """A forward pass in one precision and memory format, without compilation.

    Args:
        model: the network.
        preprocess: of the network.
        settings: names of the precision and the memory format.
    """

    def __init__(self, model: nn.Module, preprocess: Preprocess, settings: tuple[str, str]) -> None:
        self.settings = settings
        self.dtype, self.format = PRECISIONS[settings[0]], FORMATS[settings[1]]
        self.preprocess, self.device = preprocess, choose_device()
        self.model = model.eval().to(self.device, self.dtype).to(memory_format=self.format)

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> None:
        inputs = normalize(pixels.to(self.device, non_blocking=True), self.preprocess, self.dtype)
        self.model(inputs.contiguous(memory_format=self.format))

    def run(self, batches: Iterator[Tensor]) -> float:
        """Run batches, and return the seconds."""
        began = time.perf_counter()
        for batch in batches:
            self(batch)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began


def fastest_forward(
    build: Callable[[], nn.Module], preprocess: Preprocess, batch: Tensor
) -> tuple[BareForward, dict[str, float]]:
    """Time a batch in all precisions and memory formats.

    Returns:
        The fastest forward pass, and images per second by settings.
    """
    seconds: dict[tuple[str, str], float] = {}
    for settings in itertools.product(PRECISIONS, FORMATS):
        trial = BareForward(build(), preprocess, settings)
        trial.run(iter([batch]))
        elapsed = trial.run(itertools.repeat(batch, TRIAL_BATCHES))
        seconds[settings] = elapsed / (TRIAL_BATCHES * len(batch))
    fastest = BareForward(build(), preprocess, min(seconds, key=lambda each: seconds[each]))
    fastest.run(iter([batch]))
    return fastest, {" ".join(each): round(1 / value, 1) for each, value in seconds.items()}


def time_forward(forward: BareForward, batches: list[Tensor], images: int) -> dict[str, Any]:
    """Time the forward pass of a number of images, repeating batches in memory."""
    full, rest = divmod(images, BATCH)
    repeated = [*itertools.islice(itertools.cycle(batches), full)]
    if rest:
        repeated.append(batches[0][:rest])
    return {"seconds": forward.run(iter(repeated))}


def time_both(forward: BareForward, images: PreparedImages, workers: int) -> dict[str, Any]:
    """Time decoding and forward pass of all images, with the better of two worker counts."""
    seconds = {}
    for number in sorted({max(workers - 1, 1), workers}):
        loader = DataLoader(images, BATCH, num_workers=number)
        seconds[number] = forward.run(iter(loader))
    best = min(seconds, key=lambda number: seconds[number])
    return {"seconds": seconds[best], "workers": best}


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bound", choices=("decode", "forward", "both"))
    parser.add_argument("--network", choices=NETWORKS, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    return parser.parse_args()


@retain_freed_memory()
def main() -> None:
    options = parse_options()
    network = NETWORKS[options.network]
    preprocess = zoo.get(options.network).preprocess
    images = PreparedImages(sorted(options.data.rglob("*.jpg")), preprocess)
    if options.bound == "decode":
        result = time_decoding(images, options.workers)
    else:
        first = PreparedImages(images.paths[: 8 * BATCH], preprocess)
        batches = list(DataLoader(first, BATCH))
        forward, rates = fastest_forward(
            lambda: build_with_new_head(network, options.weights), preprocess, batches[0]
        )
        if options.bound == "forward":
            result = time_forward(forward, batches, len(images))
        else:
            result = time_both(forward, images, options.workers)
        result |= {"how": " ".join(forward.settings), "images_per_second_tried": rates}
    options.out.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
