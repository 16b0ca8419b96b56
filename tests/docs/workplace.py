"""What the pages of docs/ find on disk: pictures, CIFAR-10, weights as a download leaves them."""

import hashlib
import pickle
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import zoo
from zoo.data.sources import EMBEDDED
from zoo.files import canonical_json, write_bytes
from zoo.modelfile import tensor_bytes
from zoo.models.weights import _record_file

# Of which embedded split each split takes its pictures, and from which place to which.
FEW = {"train": ("train", 0, 8), "val": ("val", 0, 4), "test": ("val", 4, 8)}


def copy_pictures(
    target: Path,
    classes: Sequence[str] = ("flag", "mammal", "playing_card"),
    parts: Mapping[str, tuple[str, int, int]] = FEW,
) -> Path:
    """Copy some of the embedded pictures into splits of class folders."""
    for split, (source, first, last) in parts.items():
        for name in classes:
            folder = target / split / name
            folder.mkdir(parents=True)
            for path in sorted((EMBEDDED / source / name).iterdir())[first:last]:
                shutil.copyfile(path, folder / path.name)
    return target


def write_cifar(folder: Path, each: int = 1) -> Path:
    """Write a small CIFAR-10 as torchvision keeps it, of embedded pictures at 32 pixels.

    Args:
        folder: the root that torchvision is given.
        each: pictures of each class in each of the six files.
    """
    home = folder / "cifar-10-batches-py"
    home.mkdir(parents=True)
    classes = sorted(path.name for path in (EMBEDDED / "train").iterdir())
    parts = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    for number, part in enumerate(parts):
        rows, labels = [], []
        for label, name in enumerate(classes):
            found = sorted((EMBEDDED / "train" / name).iterdir())
            for path in found[number * each : (number + 1) * each]:
                pixels = np.asarray(Image.open(path).convert("RGB").resize((32, 32)))
                rows.append(pixels.transpose(2, 0, 1).reshape(-1))
                labels.append(label)
        held = {"data": np.stack(rows), "labels": labels, "filenames": [part] * len(labels)}
        (home / part).write_bytes(pickle.dumps(held, protocol=2))
    meta = {"label_names": classes, "num_cases_per_batch": 10 * each, "num_vis": 3072}
    (home / "batches.meta").write_bytes(pickle.dumps(meta, protocol=2))
    return folder


def _settled(backbone: zoo.Backbone) -> dict[str, torch.Tensor]:
    """Return random values with batch norm that knows them, so that features have a usual scale."""
    torch.manual_seed(0)
    model = backbone.build()
    images = torch.randn(4, 3, backbone.preprocess.height, backbone.preprocess.width)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # the statistics of all batches so far, of which there is one
    with torch.no_grad():
        model.train()(images)
    return model.state_dict()


def leave_download(name: str, cache: Path, home: Path) -> None:
    """Leave weights in zoo's cache and in torchvision's, as their downloads would have.

    No hub is within reach of a test, so the values are drawn at random.

    Args:
        name: torchvision's name of a network.
        cache: `XDG_CACHE_HOME`.
        home: `TORCH_HOME`.
    """
    backbone = zoo.get(f"torchvision/{name}")
    weights = backbone.weights[0]
    tensors = _settled(backbone)
    data = tensor_bytes(tensors)
    digest = hashlib.sha256(data).hexdigest()
    record = cache / "zoo" / "weights" / _record_file(backbone, weights).name
    write_bytes(record.parent / f"{digest}.safetensors", data)
    write_bytes(record, canonical_json({"source": digest, "converted": digest}).encode())
    checkpoints = home / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True, exist_ok=True)
    torch.save(tensors, checkpoints / Path(weights.url).name)
