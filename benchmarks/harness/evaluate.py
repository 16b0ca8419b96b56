"""Evaluate model files on the validation split, the same way for all, without zoo.

    python -m benchmarks.harness.evaluate --network NAME --data DIR FILE...

Prints a JSON object: the top-1 accuracy of each file.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

from benchmarks.harness.networks import (
    BATCH,
    CLASSES,
    NETWORKS,
    build,
    choose_device,
    evaluation_transform,
)


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=NETWORKS, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("files", type=Path, nargs="+")
    options = parser.parse_args()
    network, device = NETWORKS[options.network], choose_device()
    dataset = ImageFolder(options.data / "val", evaluation_transform(network))
    models = {}
    for file in options.files:
        models[file] = build(network, CLASSES).to(device).eval()
        models[file].load_state_dict(load_file(file))
    correct = dict.fromkeys(models, 0)
    for images, labels in DataLoader(dataset, BATCH, num_workers=1):
        for file, model in models.items():
            predictions = model(images.to(device)).argmax(1).cpu()
            correct[file] += int((predictions == labels).sum())
    print(json.dumps({str(file): count / len(dataset) for file, count in correct.items()}))


if __name__ == "__main__":
    main()
