"""Images with activation maps: the bright place is where the network's input has it."""

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data.activation_overlay import blend_map
from zoo.data.transforms import prepare
from zoo.spec import Preprocess


def saturation(image):
    pixels = np.asarray(image, dtype=int)
    return pixels.max(axis=2) - pixels.min(axis=2)


@pytest.mark.parametrize("crop", ["center", "squash", "border"])
@pytest.mark.parametrize("size", [(90, 60), (50, 150), (64, 64)])
def test_bright_place_is_that_of_input(crop, size):
    preprocess = Preprocess(size=32, resize=40 if crop == "center" else 32, crop=crop)
    # A white square at a known place of the original; the map is its place in the input.
    width, height = size
    left, top = width // 2, height // 2 - 8
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[top : top + 8, left : left + 8] = 255
    original = Image.fromarray(pixels)
    values = prepare(original, preprocess)[0].float()
    assert float(values.max()) > 100
    blank = Image.new("RGB", size, (128, 128, 128))
    heat = saturation(blend_map(blank, values, size, preprocess))
    y, x = np.argwhere(heat > 0.8 * heat.max()).mean(axis=0)
    assert abs(x - (left + 4)) <= 0.05 * width
    assert abs(y - (top + 4)) <= 0.05 * height
    # On a small copy of the image, it is the same place.
    copy = blend_map(blank.resize((width // 2, height // 2)), values, size, preprocess)
    y, x = np.argwhere(saturation(copy) > 0.6 * saturation(copy).max()).mean(axis=0)
    assert abs(2 * x - (left + 4)) <= 0.1 * width
    assert abs(2 * y - (top + 4)) <= 0.1 * height


def test_outside_of_crop_is_dark_and_empty_map_grey():
    preprocess = Preprocess(size=32, resize=32)
    image = Image.new("RGB", (96, 32), (200, 200, 200))
    drawn = np.asarray(blend_map(image, torch.zeros(4, 4), image.size, preprocess), dtype=int)
    assert saturation(drawn).max() == 0
    assert drawn[:, 40:56].min() > 2 * drawn[:, :20].max()
    assert (drawn[:, :20] == drawn[:, -20:]).all()
