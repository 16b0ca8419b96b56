"""Train with the textbook's loop: a frozen network, every image read anew in every epoch.

As in PyTorch's tutorial on transfer learning, rewritten: all parameters frozen, a new last layer,
SGD with momentum, a step schedule, training and validation in each epoch, the best epoch saved.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import StepLR
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

from benchmarks.harness.marks import DONE, EPOCH, READY, mark
from benchmarks.harness.networks import (
    BATCH,
    NETWORKS,
    Network,
    build_with_new_head,
    choose_device,
    evaluation_transform,
    parse_options,
    save,
)


def make_loaders(network: Network, data: Path, workers: int) -> dict[str, DataLoader[Any]]:
    """Return loaders of both splits; training images are cropped and flipped at random."""
    augmentation = transforms.Compose(
        [
            transforms.RandomResizedCrop(224),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(network.mean, network.std),
        ]
    )
    transform_by_split = {"train": augmentation, "val": evaluation_transform(network)}
    return {
        split: DataLoader(
            ImageFolder(data / split, transform), BATCH, shuffle=True, num_workers=workers
        )
        for split, transform in transform_by_split.items()
    }


def run_phase(
    model: nn.Module, batches: DataLoader[Any], optimizer: torch.optim.Optimizer, training: bool
) -> float:
    """Run one split through the model once, and return the accuracy on it."""
    model.train(training)
    device, correct, count = next(model.parameters()).device, 0.0, 0
    for images, labels in batches:
        images, labels = images.to(device), labels.to(device)
        optimizer.zero_grad()
        with torch.set_grad_enabled(training):
            logits = model(images)
            loss = nn.functional.cross_entropy(logits, labels)
        if training:
            loss.backward()
            optimizer.step()
        correct += (logits.argmax(1) == labels).sum().item()
        count += len(labels)
    return correct / count


def main() -> None:
    options = parse_options(__doc__)
    network = NETWORKS[options.network]
    model = build_with_new_head(network, options.weights)
    model.requires_grad_(False)
    head = model.get_submodule(network.head).requires_grad_(True)
    model.to(choose_device())
    optimizer = torch.optim.SGD(head.parameters(), lr=0.001, momentum=0.9)
    schedule = StepLR(optimizer, step_size=7, gamma=0.1)
    loaders = make_loaders(network, options.data, options.workers)
    best_accuracy = -1.0
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "best.pt"
        mark(READY)
        for _ in range(options.epochs):
            run_phase(model, loaders["train"], optimizer, training=True)
            schedule.step()
            accuracy = run_phase(model, loaders["val"], optimizer, training=False)
            if accuracy > best_accuracy:
                best_accuracy = accuracy
                torch.save(model.state_dict(), checkpoint)
            mark(EPOCH)
        model.load_state_dict(torch.load(checkpoint, weights_only=True))
    save(model, options.out)
    mark(DONE)


if __name__ == "__main__":
    main()
