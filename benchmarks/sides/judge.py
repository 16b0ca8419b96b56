"""Evaluate model files on the validation images, all in the same way, without zoo.

    python -m benchmarks.sides.judge --network NAME --data DIR FILE...

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

from benchmarks.sides.networks import BATCH, CLASSES, NETWORKS, build, device, evaluation


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=NETWORKS, required=True)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("files", type=Path, nargs="+")
    options = parser.parse_args()
    network, target = NETWORKS[options.network], device()
    images = ImageFolder(options.data / "val", evaluation(network))
    models = {}
    for file in options.files:
        models[file] = build(network, CLASSES).to(target).eval()
        models[file].load_state_dict(load_file(file))
    hits = dict.fromkeys(models, 0)
    for batch, labels in DataLoader(images, BATCH, num_workers=1):
        for file, model in models.items():
            hits[file] += (model(batch.to(target)).argmax(1).cpu() == labels).sum().item()
    print(json.dumps({str(file): count / len(images) for file, count in hits.items()}))


if __name__ == "__main__":
    main()
