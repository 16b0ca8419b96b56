"""Augmentation as a function of seed, epoch and sample index."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, v2

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


def test_dataset_draws_by_seed_epoch_and_index():
    drawn = set()
    for seed, epoch, index in ((4, 1, 2), (4, 2, 2), (4, 1, 3), (5, 1, 2)):
        sequence = np.random.SeedSequence(seed, spawn_key=(epoch, index, 1))
        word = sequence.generate_state(1, np.uint64)[0]
        by_hand = torch.Generator().manual_seed(int(word >> 1))
        with Draw(None, seed, epoch).while_reading(index):
            values = torch.rand(3)
        assert torch.equal(values, torch.rand(3, generator=by_hand))
        drawn.add(tuple(values.tolist()))
    assert len(drawn) == 4


def test_draw_preserves_global_generator(image):
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    Draw(Augmentation.parse("crop,trivial,color"), 0, 1)(image, SMALL, 0)
    assert torch.equal(torch.rand(3), expected)


def test_flip_with_probability_one(image):
    always = Draw(Augmentation.parse("flip:1"), 0, 0)(image, SMALL, 0)
    assert torch.equal(always, prepare(image, SMALL).flip(2))


MEAN = (0.2, 0.6, 0.98)
FILL = [51, 153, 250]  # 255 times the mean, rounded
BICUBIC, BILINEAR = InterpolationMode.BICUBIC, InterpolationMode.BILINEAR


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("crop:0.3", v2.RandomResizedCrop((40, 48), (0.3, 1.0), interpolation=BICUBIC)),
        ("flip:0.4", v2.RandomHorizontalFlip(0.4)),
        ("vflip:0.4", v2.RandomVerticalFlip(0.4)),
        ("rotate:30", v2.RandomRotation(30, BILINEAR, fill=FILL)),
        ("color:0.3", v2.ColorJitter(0.3, 0.3, 0.3)),
        ("trivial", v2.TrivialAugmentWide(fill=FILL)),
        ("erase:0.6", v2.RandomErasing(0.6, value=FILL)),
    ],
)
def test_augmentation_equals_torchvision_with_drawn_seed(text, reference, image):
    preprocess = zoo.Preprocess((40, 48), 44, interpolation="bicubic", mean=MEAN)
    for epoch in range(1, 8):
        pixels = Draw(Augmentation.parse(text), 9, epoch)(image, preprocess, 5)
        key = np.random.SeedSequence(9, spawn_key=(epoch, 5)).generate_state(1, np.uint64)
        with torch.random.fork_rng():
            torch.manual_seed(int(key[0] >> 1))
            if "crop" in text:
                expected = v2.functional.pil_to_tensor(reference(image))
            else:
                expected = reference(prepare(image, preprocess))
        levels = 2 if "crop" in text else 0  # of a resize
        assert (pixels.int() - expected.int()).abs().max() <= levels


def test_augmentations_apply_in_order_after_the_crop(image):
    draw = Draw(Augmentation.parse("flip:1,crop:0.5,vflip:1"), 0, 1)
    alone = Draw(Augmentation.parse("crop:0.5"), 0, 1)(image, SMALL, 2)
    assert torch.equal(draw(image, SMALL, 2), alone.flip(1, 2))
