"""Augmentation as a function of seed, epoch and sample index."""

import pytest
import torch
from PIL import Image

import zoo
from zoo.data.augment import Draw
from zoo.data.transforms import prepare
from zoo.options import Augmentation
from zoo.options.augmentation import STRENGTHS
from zoo.tasks.classification.data.sources import open_data

SMALL = zoo.Preprocess(size=(40, 48), resize=44)


@pytest.fixture(scope="module")
def image() -> Image.Image:
    return open_data(None).splits["val"].image(40)


@pytest.mark.parametrize("name", STRENGTHS)
@pytest.mark.parametrize("channels", [1, 3])
def test_augmentation_changes_pixels_not_shape(name, channels, image):
    preprocess = zoo.Preprocess((40, 48), 44, mean=(0.5,) * channels, std=(0.5,) * channels)
    plain = prepare(image, preprocess)
    drawn = [Draw(Augmentation.parse(name), 0, epoch)(image, preprocess, 3) for epoch in range(12)]
    assert {(tuple(image.shape), image.dtype) for image in drawn} == {
        ((channels, 40, 48), torch.uint8)
    }
    assert any(not torch.equal(image, plain) for image in drawn)


def test_draw_depends_on_seed_epoch_and_index(image):
    augment = Augmentation.parse("crop,flip,rotate,color,erase")
    first = Draw(augment, 0, 1)(image, SMALL, 5)
    torch.rand(7)
    assert torch.equal(first, Draw(augment, 0, 1)(image, SMALL, 5))
    for other in (
        Draw(augment, 1, 1)(image, SMALL, 5),
        Draw(augment, 0, 2)(image, SMALL, 5),
        Draw(augment, 0, 1)(image, SMALL, 6),
    ):
        assert not torch.equal(first, other)


def test_draw_preserves_global_generator(image):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    Draw(Augmentation.parse("crop,trivial,color"), 0, 1)(image, SMALL, 0)
    assert torch.equal(torch.rand(3), expected)


def test_flip_with_probability_one(image):
    always = Draw(Augmentation.parse("flip:1"), 0, 0)(image, SMALL, 0)
    assert torch.equal(always, prepare(image, SMALL).flip(2))
