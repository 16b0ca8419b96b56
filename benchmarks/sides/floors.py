"""Lower bounds of a head training: decoding all images, and a bare forward pass.

    python -m benchmarks.sides.floors decode|forward|both ... --out FILE

`decode` decodes and preprocesses like zoo, in one process per core.
`forward` runs on images in memory, in the fastest precision and memory format, with freed memory
retained between batches, as in zoo.
`both` is one pass of decoding and forward, with the fastest number of workers.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import zoo
from benchmarks.sides.networks import BATCH, NETWORKS, build_on, device
from zoo.data.images import prepare_image
from zoo.data.transforms import normalize
from zoo.engine.runtime.allocator import retain_freed_memory
from zoo.spec import Preprocess

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
TRIED = 4


@dataclass(frozen=True)
class Images(Dataset):
    """Images preprocessed by zoo."""

    paths: list[Path]
    preprocess: Preprocess

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return prepare_image(self.paths[index], self.preprocess).pixels


def _one_thread() -> None:
    torch.set_num_threads(1)


def _prepare(task: tuple[Path, Preprocess]) -> None:
    prepare_image(*task)


def decode(images: Images, workers: int) -> dict[str, Any]:
    """Time decoding and preprocessing of all images in started processes."""
    tasks = [(path, images.preprocess) for path in images.paths]
    with multiprocessing.Pool(workers, initializer=_one_thread) as pool:
        pool.map(_prepare, tasks[:BATCH], chunksize=1)
        began = time.perf_counter()
        for _ in pool.imap_unordered(_prepare, tasks, chunksize=8):
            pass
        return {"seconds": time.perf_counter() - began, "workers": workers}


class Bare:
    """A network in one precision and memory format, not compiled."""

    def __init__(self, model: nn.Module, preprocess: Preprocess, how: tuple[str, str]) -> None:
        self.how = how
        self.dtype, self.format = PRECISIONS[how[0]], FORMATS[how[1]]
        self.preprocess, self.device = preprocess, device()
        self.model = model.eval().to(self.device, self.dtype, memory_format=self.format)

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> Tensor:
        inputs = normalize(pixels.to(self.device, non_blocking=True), self.preprocess, self.dtype)
        return self.model(inputs.contiguous(memory_format=self.format))

    def run(self, batches: Iterator[Tensor]) -> float:
        """Return the seconds of a forward over batches."""
        began = time.perf_counter()
        for batch in batches:
            self(batch)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began


def fastest(
    build_model: Any, preprocess: Preprocess, batch: Tensor
) -> tuple[Bare, dict[str, float]]:
    """Return the network in the fastest precision and memory format on a batch."""
    seconds: dict[tuple[str, str], float] = {}
    for how in itertools.product(PRECISIONS, FORMATS):
        bare = Bare(build_model(), preprocess, how)
        bare.run(iter([batch]))
        seconds[how] = bare.run(itertools.repeat(batch, TRIED)) / (TRIED * len(batch))
    best = Bare(build_model(), preprocess, min(seconds, key=lambda how: seconds[how]))
    best.run(iter([batch]))
    return best, {" ".join(how): round(1 / taken, 1) for how, taken in seconds.items()}


def forward(bare: Bare, some: list[Tensor], images: int) -> dict[str, Any]:
    """Time a forward pass of `images` images from memory."""
    full, rest = divmod(images, BATCH)
    batches = [*itertools.islice(itertools.cycle(some), full), *([some[0][:rest]] if rest else [])]
    return {"seconds": bare.run(iter(batches))}


def both(bare: Bare, images: Images, workers: int) -> dict[str, Any]:
    """Time one pass of decoding and forward."""
    seconds = {}
    for number in sorted({max(workers - 1, 1), workers}):
        loader = DataLoader(images, BATCH, num_workers=number)
        seconds[number] = bare.run(iter(loader))
    best = min(seconds, key=lambda number: seconds[number])
    return {"seconds": seconds[best], "workers": best}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("decode", "forward", "both"))
    parser.add_argument("--network", choices=NETWORKS, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--workers", type=int, default=2)
    return parser.parse_args()


@retain_freed_memory()
def main() -> None:
    options = parse_arguments()
    network = NETWORKS[options.network]
    preprocess = zoo.get(options.network).preprocess
    images = Images(sorted(options.data.rglob("*.jpg")), preprocess)
    if options.what == "decode":
        result = decode(images, options.workers)
    else:
        some = list(DataLoader(Images(images.paths[: 8 * BATCH], preprocess), BATCH))
        bare, tried = fastest(lambda: build_on(network, options.weights), preprocess, some[0])
        result = (
            forward(bare, some, len(images))
            if options.what == "forward"
            else both(bare, images, options.workers)
        )
        result |= {"how": " ".join(bare.how), "images_per_second_tried": tried}
    options.out.write_text(json.dumps(result))


if __name__ == "__main__":
    main()
