"""A bare loop that trains all layers on tensors in memory: nothing is decoded, counted or kept.

Its formats in memory are tried on a few batches, and the quickest is taken. Optimizer, batch and
precision are those of the run of zoo's beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from benchmarks.sides.marks import EPOCH, READY, mark
from benchmarks.sides.networks import NETWORKS, build_on, device, evaluation, save

FORMATS = (torch.contiguous_format, torch.channels_last)
OPTIMIZERS = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam, "sgd": torch.optim.SGD}
TRIED = 3

Split = tuple[Tensor, Tensor]


def in_memory(folder: Path, transform: object, workers: int) -> Split:
    """Decode a split once."""
    batches = list(DataLoader(ImageFolder(folder, transform), 64, num_workers=workers))
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    return images, labels


class Loop:
    """A network and its optimizer in one memory format."""

    def __init__(self, model: nn.Module, options: argparse.Namespace, form: torch.memory_format):
        self.place, self.form, self.size = device(), form, options.batch_size
        self.model = model.to(self.place, memory_format=form)
        self.optimizer = OPTIMIZERS[options.optimizer](model.parameters(), lr=1e-4)
        bf16 = options.precision == "bf16"
        self.autocast = (
            torch.autocast(self.place.type, torch.bfloat16) if bf16 else contextlib.nullcontext()
        )

    def train(self, split: Split, order: Tensor) -> None:
        """Go through images in an order once."""
        self.model.train()
        for rows in order.split(self.size):
            if len(rows) == 1:
                continue  # batch norm cannot train on one
            labels = split[1][rows].to(self.place)
            self.optimizer.zero_grad(set_to_none=True)
            with self.autocast:
                loss = nn.functional.cross_entropy(self._logits(split[0][rows]), labels)
            loss.backward()
            self.optimizer.step()

    def validate(self, split: Split) -> None:
        """Go through images without training."""
        self.model.eval()
        with torch.inference_mode(), self.autocast:
            for batch in split[0].split(self.size):
                self._logits(batch)
        if self.place.type == "cuda":
            torch.cuda.synchronize()

    def _logits(self, images: Tensor) -> Tensor:
        return self.model(images.to(self.place).contiguous(memory_format=self.form))


def quickest(options: argparse.Namespace, split: Split) -> Loop:
    """Return the loop in the quickest memory format."""
    few = torch.arange(min(len(split[1]), options.batch_size))
    seconds = {}
    for form in FORMATS:
        loop = Loop(build_on(NETWORKS[options.network], options.weights), options, form)
        loop.train(split, few)
        began = time.perf_counter()
        for _ in range(TRIED):
            loop.train(split, few)
        loop.validate((split[0][few], split[1][few]))  # waits for the device too
        seconds[form] = time.perf_counter() - began
    best = min(seconds, key=lambda form: seconds[form])
    print(best)
    return Loop(build_on(NETWORKS[options.network], options.weights), options, best)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=NETWORKS, required=True)
    for name in ("data", "weights", "out"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    parser.add_argument("--optimizer", choices=OPTIMIZERS, default="adamw")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    transform = evaluation(NETWORKS[options.network])
    train, val = (
        in_memory(options.data / part, transform, options.workers) for part in ("train", "val")
    )
    loop = quickest(options, train)
    mark(READY)
    for _ in range(options.epochs):
        loop.train(train, torch.randperm(len(train[1])))
        loop.validate(val)
        mark(EPOCH)
    save(loop.model, options.out)


if __name__ == "__main__":
    main()
