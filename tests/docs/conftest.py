"""A folder to work in as the pages have it, and weights as a download would have left them."""

import hashlib
import shutil
from pathlib import Path

import pytest
import torch

import zoo
from zoo.data.sources import EMBEDDED
from zoo.files import canonical_json, write_bytes
from zoo.modelfile import tensor_bytes
from zoo.models.weights import _record_file

# The classes of `photos/`, and how many pictures of each the pages are run on.
CLASSES = ("flag", "mammal", "playing_card")
COUNTS = {"train": 8, "val": 4, "test": 4}


def copy_pictures(target: Path, classes=CLASSES, counts=None) -> Path:
    """Copy a few of the embedded pictures into splits of class folders."""
    for split, count in (counts or COUNTS).items():
        source = EMBEDDED / ("train" if split == "train" else "val")
        for name in classes:
            folder = target / split / name
            folder.mkdir(parents=True)
            found = sorted((source / name).iterdir())
            first = COUNTS["val"] if split == "test" else 0
            for path in found[first : first + count]:
                shutil.copyfile(path, folder / path.name)
    return target


@pytest.fixture
def workplace(tmp_path, monkeypatch) -> Path:
    """An empty folder with `photos/` (train, val and test), `more_photos/` and `cat.jpg`."""
    copy_pictures(tmp_path / "photos")
    for name in CLASSES:
        shutil.copytree(tmp_path / "photos" / "test" / name, tmp_path / "more_photos" / name)
    cat = sorted((EMBEDDED / "val" / "mammal").iterdir())[0]
    shutil.copyfile(cat, tmp_path / "cat.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _settled(name: str) -> dict[str, torch.Tensor]:
    """Return random values with batch norm that knows them, so that features have a usual scale."""
    torch.manual_seed(0)
    backbone = zoo.get(name)
    model = backbone.build()
    images = torch.randn(4, 3, backbone.preprocess.height, backbone.preprocess.width)
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = None  # the statistics of all batches so far, of which there is one
    with torch.no_grad():
        model.train()(images)
    return model.state_dict()


@pytest.fixture(scope="session")
def downloaded(tmp_path_factory, shared_cache):
    """Leave weights in zoo's cache and in torchvision's, as their downloads would have.

    No hub is within reach of a test, so the values are drawn at random. Returns a function of
    torchvision's name of a network; `TORCH_HOME` must be what its attribute `home` says.
    """
    home = tmp_path_factory.mktemp("torch")
    done: set[str] = set()

    def download(name: str) -> None:
        if name in done:
            return
        done.add(name)
        backbone = zoo.get(f"torchvision/{name}")
        weights = backbone.weights[0]
        tensors = _settled(backbone.id)
        data = tensor_bytes(tensors)
        digest = hashlib.sha256(data).hexdigest()
        record = shared_cache / "zoo" / "weights" / _record_file(backbone, weights).name
        write_bytes(record.parent / f"{digest}.safetensors", data)
        write_bytes(record, canonical_json({"source": digest, "converted": digest}).encode())
        checkpoints = home / "hub" / "checkpoints"
        checkpoints.mkdir(parents=True, exist_ok=True)
        torch.save(tensors, checkpoints / Path(weights.url).name)

    download.home = home
    return download
