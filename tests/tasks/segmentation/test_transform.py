"""Joint transforms of images and masks."""

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data.augment import Draw
from zoo.errors import UsageError
from zoo.options import Augmentation
from zoo.spec import Preprocess
from zoo.tasks.segmentation.task import SemanticSegmentation
from zoo.tasks.segmentation.transform import MaskTransform

TASK = SemanticSegmentation()
PREPROCESS = Preprocess(64, 64, crop="border", mean=(0.9, 0.9, 0.9))


def blocks() -> tuple[Image.Image, Image.Image]:
    """Return a mask of large blocks, and an image whose brightness is 50 times the class."""
    mask = np.zeros((60, 80), dtype=np.uint8)
    mask[:, 30:] = 1
    mask[40:, 10:50] = 2
    mask[:15, 60:] = 3
    return Image.fromarray(mask * 50).convert("RGB"), Image.fromarray(mask)


@pytest.mark.parametrize(
    "text", ["crop:0.3", "flip:1", "vflip:1", "rotate:40", "crop:0.5,flip,vflip,rotate:20"]
)
def test_geometry_is_applied_to_image_and_mask(text):
    image, mask = blocks()
    transform = MaskTransform(PREPROCESS)
    classes_checked = 0
    for epoch in range(1, 6):
        pixels, moved = transform(image, mask, 7, Draw(Augmentation.parse(text), 0, epoch))
        assert pixels.shape == (3, 64, 64)
        assert (moved.shape, moved.dtype, type(moved)) == ((64, 64), torch.uint8, torch.Tensor)
        # Away from edges, which the image's interpolation blends, brightness is 50 times the class.
        brightness = pixels.float().mean(0)
        spread = [
            torch.nn.functional.max_pool2d(sign * moved.float()[None], 5, 1, 2)[0]
            for sign in (1, -1)
        ]
        # Padding is ignored; there v2 blends the frame's edge with black.
        steady = (spread[0] == -spread[1]) & (moved != 255)
        steady[:2] = steady[-2:] = False
        steady[:, :2] = steady[:, -2:] = False
        assert (brightness - 50.0 * moved)[steady].abs().max() <= 3
        classes_checked += len(moved[steady].unique())
    assert classes_checked > 10


def test_crop_aligns_mask_within_one_pixel():
    # A central vertical edge must stay aligned after downsampling.
    mask = np.zeros((512, 512), dtype=np.uint8)
    mask[:, 256:] = 1
    image = Image.fromarray(mask * 200).convert("RGB")
    transform = MaskTransform(Preprocess(32, 32))
    for epoch in range(1, 9):
        draw = Draw(Augmentation.parse("crop:0.9"), 0, epoch)
        pixels, moved = transform(image, Image.fromarray(mask), 0, draw)
        at = pixels[0].float().div(200).sum(1).mean() - moved.float().sum(1).mean()
        assert abs(at) <= 0.51


def test_color_leaves_mask_unchanged():
    image, mask = blocks()
    transform = MaskTransform(PREPROCESS)
    plain, unmoved = transform(image, mask, 0)
    pixels, moved = transform(image, mask, 0, Draw(Augmentation.parse("color:0.8"), 0, 1))
    assert torch.equal(moved, unmoved)
    assert not torch.equal(pixels, plain)


def test_transform_depends_on_seed_epoch_and_index():
    image, mask = blocks()
    transform = MaskTransform(PREPROCESS)
    draw = Draw(Augmentation.parse("crop,flip,rotate"), 5, 2)
    first, again = transform(image, mask, 3, draw), transform(image, mask, 3, draw)
    state = torch.get_rng_state()
    other = transform(image, mask, 4, draw)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[1], other[1])


def test_collate_stacks_masks():
    transform = MaskTransform(PREPROCESS)
    assert transform.collate([]).shape == (0, 64, 64)
    stacked = transform.collate([torch.zeros(64, 64, dtype=torch.uint8)] * 2)
    assert (stacked.shape, stacked.dtype) == ((2, 64, 64), torch.uint8)


@pytest.mark.parametrize("name", ["trivial", "erase"])
def test_check_augmentation_rejects_unsupported_steps(name):
    with pytest.raises(UsageError, match=f"--augment {name}"):
        TASK.check_augmentation(Augmentation.parse(f"flip,{name}"), None)
    TASK.check_augmentation(Augmentation.parse("crop,flip,vflip,rotate,color"), None)
    with pytest.raises(UsageError, match="--views"):
        TASK.check_augmentation(Augmentation.parse("flip"), 2)
