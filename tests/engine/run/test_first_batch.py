"""The first batch that observers see: the images as the network gets them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset

import zoo
from zoo.data.decode import decode
from zoo.data.transforms import prepare

pytestmark = pytest.mark.usefixtures("in_empty_folder")
QUICK = {"weights": "none", "device": "cpu", "lr": 0.01, "batch_size": 8}


@pytest.mark.parametrize("recipe", ["head", "all"])
def test_first_batch_equals_the_network_input(tinynet, image_folder, watcher, recipe):
    zoo.finetune(tinynet, data=image_folder, recipe=recipe, epochs=2, **QUICK)
    (first,) = (event for event in watcher() if isinstance(event, zoo.FirstBatchRead))
    assert first.images.shape == (8, 32, 32, 3)
    assert first.images.dtype == np.uint8
    preprocess = zoo.get(tinynet).preprocess
    known = {
        prepare(decode(path), preprocess).permute(1, 2, 0).numpy().tobytes(): path.parent.name
        for path in (image_folder / "train").rglob("*.jpg")
    }
    names = [known[image.tobytes()] for image in first.images]
    assert names == [first.classes[label] for label in first.labels]


def test_first_batch_is_augmented(tinynet, image_folder, watcher):
    for augment in ("none", "erase:1"):
        zoo.finetune(tinynet, data=image_folder, recipe="all", epochs=1, augment=augment, **QUICK)
    plain, erased = (e for e in watcher() if isinstance(e, zoo.FirstBatchRead))
    assert plain.labels == erased.labels
    same = (plain.images == erased.images).all(axis=3)
    assert not same.all(axis=(1, 2)).any()
    assert same.any(axis=(1, 2)).all()


class Prepared(Dataset):
    """Images transformed by the user, and one with values outside those of images."""

    def __init__(self, root: Path) -> None:
        self.paths = sorted(root.rglob("*.jpg"))
        self.classes = sorted({path.parent.name for path in self.paths})
        self.targets = [self.classes.index(path.parent.name) for path in self.paths]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int):
        if index == 0:
            return torch.linspace(-1e3, 1e3, 32).repeat(3, 32, 1), self.targets[0]
        return zoo.transform("tiny/tinynet")(self.paths[index]), self.targets[index]


@pytest.mark.parametrize("loader", [False, True])
def test_first_batch_of_floats_is_denormalized(tinynet, image_folder, watcher, loader):
    data = {split: Prepared(image_folder / split) for split in ("train", "val")}
    if loader:
        data = {split: DataLoader(part, batch_size=24) for split, part in data.items()}
    zoo.finetune(tinynet, data=data, recipe="all", epochs=1, **{**QUICK, "batch_size": 24})
    (first,) = (event for event in watcher() if isinstance(event, zoo.FirstBatchRead))
    preprocess = zoo.get(tinynet).preprocess
    shown = {image.tobytes() for image in first.images}
    paths = sorted((image_folder / "train").rglob("*.jpg"))[1:]
    known = {prepare(decode(p), preprocess).permute(1, 2, 0).numpy().tobytes() for p in paths}
    assert known < shown
    (odd,) = (np.frombuffer(data, np.uint8).reshape(32, 32, 3) for data in shown - known)
    assert odd[0, :, 0].tolist()[:15] == [0] * 15
    assert odd[0, :, 0].tolist()[-15:] == [255] * 15


def test_first_batch_without_observers_is_not_denormalized(
    tinynet, image_folder, install, monkeypatch
):
    install("quiet", "import zoo\n\n@zoo.hookimpl\ndef zoo_after_fit(event): pass\n")
    made = []
    monkeypatch.setattr("zoo.engine.run.observers.denormalize", lambda *given: made.append(given))
    zoo.finetune(tinynet, data=image_folder, epochs=1, **QUICK)
    assert not made
