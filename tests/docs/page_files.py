"""Files for the pages of docs/: images, CIFAR-10, weights as if downloaded."""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

import zoo
from tests.published_sets import embedded_pixels, write_cifar
from zoo.files import canonical_json, write_bytes
from zoo.modelfile import tensor_bytes
from zoo.models.weight_sources import record_file
from zoo.tasks.classification.data.sources import EMBEDDED

# By split: the embedded split its images are from, first and last index.
FEW = {"train": ("train", 0, 8), "val": ("val", 0, 4), "test": ("val", 4, 8)}


def copy_images(
    target: Path,
    classes: Sequence[str] = ("flag", "mammal", "playing_card"),
    parts: Mapping[str, tuple[str, int, int]] = FEW,
) -> Path:
    """Copy some of the embedded images into splits of class folders."""
    for split, (source, first, last) in parts.items():
        for name in classes:
            folder = target / split / name
            folder.mkdir(parents=True)
            for path in sorted((EMBEDDED / source / name).iterdir())[first:last]:
                shutil.copyfile(path, folder / path.name)
    return target


def write_embedded_cifar(folder: Path, each: int = 1) -> Path:
    """Write a small CIFAR-10 in torchvision's layout, of embedded images at 32 pixels.

    Args:
        folder: `root` of torchvision's data set.
        each: images per class in each of the six files.
    """
    pixels = embedded_pixels(6 * each)
    parts = [pixels[first : first + each] for first in range(0, 6 * each, each)]
    labels = list(range(10)) * each
    return write_cifar(folder, [(part.reshape(-1, 32, 32, 3), labels) for part in parts])


def _random_state_dict(backbone: zoo.Backbone) -> dict[str, torch.Tensor]:
    """Return random weights with matching batch-norm statistics, for features of normal scale."""
    torch.manual_seed(0)
    model = backbone.build()
    images = torch.randn(4, 3, backbone.preprocess.height, backbone.preprocess.width)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # cumulative average, here of one batch
    with torch.no_grad():
        model.train()(images)
    return model.state_dict()


def write_downloaded_weights(name: str, cache: Path, home: Path) -> None:
    """Write random weights to zoo's cache and torchvision's, as if downloaded.

    Args:
        name: of a torchvision network.
        cache: `XDG_CACHE_HOME`.
        home: `TORCH_HOME`.
    """
    backbone = zoo.get(f"torchvision/{name}")
    weights = backbone.weights[0]
    tensors = _random_state_dict(backbone)
    data = tensor_bytes(tensors)
    digest = hashlib.sha256(data).hexdigest()
    record = cache / "zoo" / "weights" / record_file(backbone, weights).name
    write_bytes(record.parent / f"{digest}.safetensors", data)
    write_bytes(record, canonical_json({"source": digest, "converted": digest}).encode())
    checkpoints = home / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, checkpoints / Path(weights.url).name)
