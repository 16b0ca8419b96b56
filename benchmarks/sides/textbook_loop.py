"""The textbook's loop: a frozen network as feature extractor, recomputed in every epoch.

As in PyTorch's tutorial on transfer learning: frozen layers, a new last layer, SGD with momentum, a
step schedule, and a training and a validation phase per epoch, of which the best is restored.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.sides.marks import DONE, EPOCH, READY, mark
from benchmarks.sides.networks import (
    BATCH,
    NETWORKS,
    Network,
    build_on,
    device,
    evaluation,
    parse_arguments,
    save,
)


def loaders(network: Network, data: Path, workers: int) -> dict[str, DataLoader]:
    """Read both splits: cropped and flipped at random to train on, as they are to validate."""
    at_random = transforms.Compose(
        [
            transforms.RandomResizedCrop(224),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(network.mean, network.std),
        ]
    )
    prepared = {"train": at_random, "val": evaluation(network)}
    return {
        part: DataLoader(
            ImageFolder(data / part, transform), BATCH, shuffle=True, num_workers=workers
        )
        for part, transform in prepared.items()
    }


def run_phase(
    model: nn.Module, batches: DataLoader, optimizer: torch.optim.Optimizer, training: bool
) -> float:
    """Go through one split once, and return the accuracy on it."""
    model.train(training)
    place, right, seen = next(model.parameters()).device, 0, 0
    for images, labels in batches:
        images, labels = images.to(place), labels.to(place)
        optimizer.zero_grad()
        with torch.set_grad_enabled(training):
            logits = model(images)
            loss = nn.functional.cross_entropy(logits, labels)
        if training:
            loss.backward()
            optimizer.step()
        right += (logits.argmax(1) == labels).sum().item()
        seen += len(labels)
    return right / seen


def main() -> None:
    options = parse_arguments(__doc__)
    network = NETWORKS[options.network]
    model = build_on(network, options.weights)
    model.requires_grad_(False)
    head = model.get_submodule(network.head).requires_grad_(True)
    model.to(device())
    optimizer = torch.optim.SGD(head.parameters(), lr=0.001, momentum=0.9)
    schedule = StepLR(optimizer, step_size=7, gamma=0.1)
    batches = loaders(network, options.data, options.workers)
    best = -1.0
    with tempfile.TemporaryDirectory() as folder:
        best_path = Path(folder) / "best.pt"
        mark(READY)
        for _ in range(options.epochs):
            run_phase(model, batches["train"], optimizer, training=True)
            schedule.step()
            accuracy = run_phase(model, batches["val"], optimizer, training=False)
            if accuracy > best:
                best = accuracy
                torch.save(model.state_dict(), best_path)
            mark(EPOCH)
        model.load_state_dict(torch.load(best_path, weights_only=True))
    save(model, options.out)
    mark(DONE)


if __name__ == "__main__":
    main()
