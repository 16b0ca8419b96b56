"""Batches of splits: bounds in training and evaluation, the image cache beside augmentation."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import zoo
from zoo.data.augment import Draw
from zoo.data.dataset import SampleTransform
from zoo.data.image_cache import ImageCache
from zoo.data.split import FileSplit
from zoo.data.transforms import prepare
from zoo.engine.runtime.reader import ImageReader
from zoo.options import Augmentation

SMALL = zoo.Preprocess(size=8)
CPU = torch.device("cpu")


@pytest.fixture
def split(tmp_path: Path) -> FileSplit:
    """Seven images of noise."""
    generator = np.random.default_rng(0)
    names = tuple(f"{number}.png" for number in range(7))
    for name in names:
        Image.fromarray(generator.integers(0, 256, (9, 12, 3), np.uint8)).save(tmp_path / name)
    return FileSplit("train", tmp_path, names, tuple(range(7)))


def reader_of(**options) -> ImageReader:
    return ImageReader(SampleTransform(SMALL), CPU, batch_size=3, **options)


def test_single_remaining_image_joins_the_batch_before_in_training(split):
    reader, order = reader_of(), [6, 5, 4, 3, 2, 1, 0]
    for training, sizes in ((False, [3, 3, 1]), (True, [3, 4])):
        batches = list(reader.read(split, order, training=training))
        assert [len(batch) for batch in batches] == sizes
        assert torch.cat([batch.targets for batch in batches]).tolist() == order
    assert reader.steps(split) == 2


def test_augmented_images_are_not_read_from_the_cache(split):
    reader = reader_of(cache=ImageCache({"train": split}, SMALL))
    plain = torch.stack([prepare(split.image(index), SMALL) for index in range(7)])

    def read(draw):
        return torch.cat([batch.inputs for batch in reader.read(split, range(7), draw)])

    assert torch.equal(read(None), plain)
    flipped = read(Draw(Augmentation.parse("flip:1"), 0, 1))
    assert torch.equal(flipped, plain.flip(-1))
    assert torch.equal(read(None), plain)


def test_unreadable_image_raises_or_is_recorded(split):
    split.path(2).write_text("no image")
    with pytest.raises(zoo.DataError, match=r"2\.png.*bad-images skip"):
        list(reader_of().read(split, range(7)))
    reader = reader_of(bad_images="skip")
    assert [batch.indices.tolist() for batch in reader.read(split, range(7))] == [
        [0, 1],
        [3, 4, 5],
        [6],
    ]
    assert list(reader.bad) == [str(split.path(2))]
