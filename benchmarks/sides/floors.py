"""What no head training can be quicker than: decoding all pictures, and a bare forward pass.

    python -m benchmarks.sides.floors decode|forward|both ... --out FILE

`decode` reads and prepares as zoo does, in as many processes as there are cores, and keeps nothing.
`forward` takes pictures from memory, in that precision and memory format which is quickest here,
and its own memory is kept from batch to batch, as zoo keeps it.
`both` is one pass of the two, the one beside the other, on as many workers as is quickest.
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
from zoo.data.images import prepare_one
from zoo.data.transforms import normalize
from zoo.engine.runtime.allocator import retain_freed_memory
from zoo.spec import Preprocess

FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16}
TRIED = 4


@dataclass(frozen=True)
class Pictures(Dataset):
    """Pictures as zoo prepares them."""

    paths: list[Path]
    preprocess: Preprocess

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return prepare_one(self.paths[index], self.preprocess)


def _one_thread() -> None:
    torch.set_num_threads(1)


def _prepare(task: tuple[Path, Preprocess]) -> None:
    prepare_one(*task)


def decode(pictures: Pictures, workers: int) -> dict[str, Any]:
    """Time the preparing of all pictures in processes that are there already."""
    tasks = [(path, pictures.preprocess) for path in pictures.paths]
    with multiprocessing.Pool(workers, initializer=_one_thread) as pool:
        pool.map(_prepare, tasks[:BATCH], chunksize=1)
        began = time.perf_counter()
        for _ in pool.imap_unordered(_prepare, tasks, chunksize=8):
            pass
        return {"seconds": time.perf_counter() - began, "workers": workers}


class Bare:
    """A network in one precision and memory format, as quick as it gets without a compiler."""

    def __init__(self, model: nn.Module, preprocess: Preprocess, how: tuple[str, str]) -> None:
        self.how = how
        self.dtype, self.format = PRECISIONS[how[0]], FORMATS[how[1]]
        self.preprocess, self.place = preprocess, device()
        self.model = model.eval().to(self.place, self.dtype, memory_format=self.format)

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> Tensor:
        inputs = normalize(pixels.to(self.place, non_blocking=True), self.preprocess, self.dtype)
        return self.model(inputs.contiguous(memory_format=self.format))

    def run(self, batches: Iterator[Tensor]) -> float:
        """Return the seconds that batches take."""
        began = time.perf_counter()
        for batch in batches:
            self(batch)
        if self.place.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began


def quickest(made: Any, preprocess: Preprocess, batch: Tensor) -> tuple[Bare, dict[str, float]]:
    """Try all precisions and memory formats on a batch, and return the quickest network."""
    seconds: dict[tuple[str, str], float] = {}
    for how in itertools.product(PRECISIONS, FORMATS):
        bare = Bare(made(), preprocess, how)
        bare.run(iter([batch]))
        seconds[how] = bare.run(itertools.repeat(batch, TRIED)) / (TRIED * len(batch))
    best = Bare(made(), preprocess, min(seconds, key=lambda how: seconds[how]))
    best.run(iter([batch]))
    return best, {" ".join(how): round(1 / taken, 1) for how, taken in seconds.items()}


def forward(bare: Bare, some: list[Tensor], images: int) -> dict[str, Any]:
    """Time a forward pass of as many images as there are, which are in memory."""
    full, rest = divmod(images, BATCH)
    batches = [*itertools.islice(itertools.cycle(some), full), *([some[0][:rest]] if rest else [])]
    return {"seconds": bare.run(iter(batches))}


def both(bare: Bare, pictures: Pictures, workers: int) -> dict[str, Any]:
    """Time one pass of decoding and forward."""
    seconds = {}
    for number in sorted({max(workers - 1, 1), workers}):
        loader = DataLoader(pictures, BATCH, num_workers=number)
        seconds[number] = bare.run(iter(loader))
    best = min(seconds, key=lambda number: seconds[number])
    return {"seconds": seconds[best], "workers": best}


def asked() -> argparse.Namespace:
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
    options = asked()
    network = NETWORKS[options.network]
    preprocess = zoo.get(options.network).preprocess
    pictures = Pictures(sorted(options.data.rglob("*.jpg")), preprocess)
    if options.what == "decode":
        found = decode(pictures, options.workers)
    else:
        some = list(DataLoader(Pictures(pictures.paths[: 8 * BATCH], preprocess), BATCH))
        bare, tried = quickest(lambda: build_on(network, options.weights), preprocess, some[0])
        found = (
            forward(bare, some, len(pictures))
            if options.what == "forward"
            else both(bare, pictures, options.workers)
        )
        found |= {"how": " ".join(bare.how), "images_per_second_tried": tried}
    options.out.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
