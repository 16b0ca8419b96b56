"""Items of a `Dataset` of the user as inputs of a network: types of images, errors, seeds."""

import re

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset
from torchvision.datasets import ImageFolder

import zoo
from tests.user_datasets import Images
from zoo.data.augment import Draw
from zoo.data.dataset import BadImage, Sample, SampleTransform, read_sample
from zoo.data.loader import load_batches
from zoo.data.transforms import normalize, prepare
from zoo.errors import DataError
from zoo.options import Augmentation
from zoo.tasks.classification.data.sources import EMBEDDED
from zoo.tasks.classification.data.user_dataset import open_dataset, open_dataset_split

SMALL = zoo.Preprocess(size=16)
OPTIONS = {"seed": 0, "val_fraction": 0.25}


def red(index):
    return np.full((24, 20, 3), 10 * index, dtype=np.uint8)


@pytest.mark.parametrize(
    "make",
    [
        lambda index: Image.fromarray(red(index)),
        red,
        lambda index: torch.from_numpy(red(index)).permute(2, 0, 1),
        lambda index: torch.full((1, 24, 20), 10 * index, dtype=torch.uint8),
        lambda index: torch.full((24, 20), 10 * index, dtype=torch.uint8),
    ],
    ids=["pil", "array", "tensor", "one channel", "no channel"],
)
def test_images_of_any_type_are_prepared_as_files(make):
    split = open_dataset(Images(make), **OPTIONS).splits["train"]
    for index in range(len(split)):
        sample = read_sample(split, SampleTransform(SMALL), index)
        expected = prepare(Image.fromarray(red(split.indices[index])), SMALL)
        assert torch.equal(sample.input, expected)
        assert sample.target == split.indices[index] % 3
        assert split.image(index).mode == "RGB"


def test_float_tensors_are_passed_unchanged():
    images = torch.randn(12, 3, 16, 16)
    data = open_dataset(TensorDataset(images, torch.arange(12) % 3), **OPTIONS)
    split = data.splits["train"]
    for index, item in enumerate(split.indices):
        assert torch.equal(read_sample(split, SampleTransform(SMALL), index).input, images[item])
    bad = read_sample(split, SampleTransform(zoo.Preprocess(size=20)), 0)
    assert "it is [3, 16, 16], and the network sees [3, 20, 20]" in bad.reason
    assert "zoo.transform" in bad.reason
    with pytest.raises(zoo.DataError, match="prepared already"):
        split.image(0)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ("words", "a str is no image"),
        (np.zeros((2, 3, 4, 5)), "float64 is not an image"),
        (torch.zeros(2, 3, 4, 5, dtype=torch.uint8), "uint8 is not an image"),
        (torch.zeros(5, 16, 16), r"\[5, 16, 16\], and the network sees \[3, 16, 16\]"),
    ],
)
def test_items_without_image_are_bad_images(item, message):
    split = open_dataset(Images(lambda _: item), **OPTIONS).splits["train"]
    bad = read_sample(split, SampleTransform(SMALL), 0)
    assert isinstance(bad, BadImage)
    assert bad.path == f"item {split.indices[0]} of the Images"
    assert len(bad.reason.splitlines()) == 1
    assert re.search(message, bad.reason)


def test_exception_of_dataset_is_reported():
    def make(index):
        raise KeyError(f"no image {index}")

    dataset = Images(make, targets=[0, 1, 2] * 4)
    split = open_dataset(dataset, **OPTIONS).splits["train"]
    bad = read_sample(split, SampleTransform(SMALL), 0)
    assert "KeyError: 'no image" in bad.reason
    with pytest.raises(zoo.DataError, match=r"label of item 0 of the Images.*KeyError"):
        open_dataset(Images(make), **OPTIONS)


def test_read_sample_checks_channels():
    split = open_dataset(Images(), **OPTIONS).splits["train"]
    four = zoo.Preprocess(size=16, mean=(0.5,) * 4, std=(0.5,) * 4)
    assert (
        "3 channels, and the network sees 4" in read_sample(split, SampleTransform(four), 0).reason
    )
    grey = zoo.Preprocess(size=16, mean=(0.5,), std=(0.5,))
    assert read_sample(split, SampleTransform(grey), 0).input.shape == (1, 16, 16)


def noise(index):
    return torch.randint(0, 256, (3, 24, 24), dtype=torch.uint8)


@pytest.mark.parametrize("augment", [None, "flip,color"])
def test_random_dataset_depends_on_seed_not_workers(augment):
    split = open_dataset(Images(noise), **OPTIONS).splits["train"]

    def images(epoch, workers, seed=0):
        draw = Draw(Augmentation.parse(augment) if augment else None, seed, epoch)
        batches = load_batches(
            split, SampleTransform(SMALL), range(len(split)), 4, workers, draw=draw
        )
        return torch.cat([batch.inputs for batch in batches])

    first = images(1, 0)
    torch.manual_seed(5)
    assert torch.equal(first, images(1, 0))
    assert torch.equal(first, images(1, 2))
    assert not torch.equal(first, images(2, 0))
    assert not torch.equal(first, images(1, 0, seed=1))
    assert len({image.numpy().tobytes() for image in first}) == len(split)


def test_workers_load_equal_batches():
    split = open_dataset(Images(), **OPTIONS).splits["train"]
    alone = list(load_batches(split, SampleTransform(SMALL), range(len(split)), 4, 0))
    two = list(load_batches(split, SampleTransform(SMALL), range(len(split)), 4, 2))
    for one, other in zip(alone, two, strict=True):
        assert torch.equal(one.inputs, other.inputs)
        assert torch.equal(one.targets, other.targets)


@pytest.mark.parametrize("workers", [0, 2])
def test_images_and_prepared_tensors_are_not_mixed(workers):
    floats = torch.full((3, 16, 16), -1.5)
    images = Images(lambda index: floats if index >= 32 else noise(index), count=40)
    split = open_dataset({"train": images, "val": images}, **OPTIONS).splits["train"]
    with pytest.raises(DataError, match="images and tensors of floats"):
        list(load_batches(split, SampleTransform(SMALL), range(40), 40, workers))


def test_zoo_transform_equals_internal_preprocessing():
    folder = ImageFolder(EMBEDDED / "val")
    path = folder.samples[0][0]
    expected = zoo.transform(SMALL)(path)
    split = open_dataset_split(folder, folder.classes, None)
    sample = read_sample(split, SampleTransform(SMALL), 0)
    assert isinstance(sample, Sample)
    assert torch.equal(normalize(sample.input[None], SMALL)[0], expected)
