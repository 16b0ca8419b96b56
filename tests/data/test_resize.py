"""The resize that every image passes, against Pillow's."""

import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from PIL import Image

from zoo.data.resize import OPERATORS, Box, is_vectorized, resize

Size = tuple[int, int]
LEVELS, SHARE = 2, 1e-3  # more than these levels of 255 differ in at most this share of the pixels


def draw_image(random: np.random.Generator, size: Size) -> Image.Image:
    """Return noise, black and white noise, or a smooth image."""
    shape = (size[1], size[0], 3)
    match random.integers(3):
        case 0:
            pixels = random.integers(0, 256, shape)
        case 1:
            pixels = 255 * random.integers(0, 2, shape)
        case _:
            down, across = np.mgrid[: size[1], : size[0]]
            waves = 127 + 127 * np.sin(across / 7 + down / 11)
            pixels = np.stack([waves, across * 255 / size[0], down * 255 / size[1]], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def draw_size(random: np.random.Generator, longest: int) -> Size:
    width, height = (round(math.exp(random.uniform(0, math.log(longest)))) for _ in range(2))
    return width, height


def by_pillow(
    image: Image.Image, size: Size, interpolation: str, box: Box | None = None
) -> Image.Image:
    kernel = Image.Resampling[interpolation.upper()]
    box = box or (0.0, 0.0, *image.size)
    if int(PIL.__version__.split(".")[0]) < 13 and interpolation in OPERATORS and is_vectorized():
        # These always resize the rows first, which rounds otherwise.
        fewer = image.width - size[0], image.height - size[1]
        if fewer[1] > 0 and 2 * fewer[0] < fewer[1]:
            image = image.resize((image.width, size[1]), kernel, (0, 0, image.width, box[3]))
            return image.resize(size, kernel, (0, 0, box[2], size[1]))
        image = image.resize((size[0], image.height), kernel, (0, 0, box[2], image.height))
        return image.resize(size, kernel, (0, 0, size[0], box[3]))
    return image.resize(size, kernel, box)


def assert_close(resized: np.ndarray, expected: Image.Image) -> None:
    assert resized.dtype == np.uint8
    assert resized.flags.c_contiguous
    levels = np.abs(resized.astype(int) - np.asarray(expected).astype(int))
    assert (levels > LEVELS).mean() <= SHARE


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_resize_any_size_agrees_with_pillow(interpolation: str) -> None:
    random = np.random.default_rng(1)
    differ = 0
    for _ in range(150):
        image = draw_image(random, draw_size(random, 900))
        size = draw_size(random, 500)
        left, top = random.integers(0, size[0]), random.integers(0, size[1])
        right, bottom = random.integers(left, size[0]) + 1, random.integers(top, size[1]) + 1
        crop = (int(left), int(top), int(right), int(bottom))
        resized = resize(image, size, crop, interpolation)
        # As simplejpeg decodes it.
        assert np.array_equal(resize(np.array(image), size, crop, interpolation), resized)
        expected = by_pillow(image, size, interpolation).crop(crop)
        assert_close(resized, expected)
        differ += not np.array_equal(resized, expected)
    assert (differ > 0) == (interpolation in ("bilinear", "bicubic") and is_vectorized())


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
def test_resize_part_of_last_pixel_agrees_with_pillow(interpolation: str) -> None:
    random = np.random.default_rng(2)
    for _ in range(60):
        size = draw_size(random, 300)
        # As decoding at a reduced scale leaves it: the image ends inside its last pixel.
        image = draw_image(random, (3 * size[0] + 1, 3 * size[1] + 1))
        right, bottom = (side - random.integers(0, 8) / 8 for side in image.size)
        box = (0.0, 0.0, float(right), float(bottom))
        whole = (0, 0, *size)
        expected = by_pillow(image, size, interpolation, box)
        assert_close(resize(image, size, whole, interpolation, box), expected)


@pytest.mark.parametrize("size", [(20, 30), (19, 30), (20, 29)])
def test_resize_part_to_size_of_image(size: Size) -> None:
    image = draw_image(np.random.default_rng(3), (20, 30))
    box = (0.0, 0.0, 14.5, 22.25)
    expected = image.resize(size, Image.Resampling.BILINEAR, box)
    assert_close(resize(image, size, (0, 0, *size), "bilinear", box), expected)


def test_resize_image_of_several_blocks_agrees_with_pillow() -> None:
    image = draw_image(np.random.default_rng(4), (2100, 2100))
    with pytest.raises(ValueError, match=r"block|contiguous"):
        image.__arrow_c_array__()
    expected = image.resize((96, 80), Image.Resampling.BICUBIC)
    assert_close(resize(image, (96, 80), (0, 0, 96, 80), "bicubic"), expected)


def test_resize_leaves_image_unchanged() -> None:
    image = draw_image(np.random.default_rng(5), (70, 50))
    before = image.tobytes()
    first = resize(image, (20, 20), (2, 2, 18, 18), "bilinear")
    assert image.tobytes() == before
    first[:] = 0
    assert resize(image, (20, 20), (2, 2, 18, 18), "bilinear").any()


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are counted in /proc")
def test_resize_starts_no_threads() -> None:
    image = draw_image(np.random.default_rng(6), (1200, 900))

    def started() -> int:
        before = len(list(Path("/proc/self/task").iterdir()))
        resize(image, (640, 480), (0, 0, 640, 480), "bicubic")
        return len(list(Path("/proc/self/task").iterdir())) - before

    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(started).result() == 0
    finally:
        torch.set_num_threads(threads)


def test_resize_without_vector_instructions_equals_pillow() -> None:
    program = """
import numpy as np
from PIL import Image
from zoo.data.resize import is_vectorized, resize
pixels = np.random.default_rng(0).integers(0, 256, (90, 120, 3)).astype(np.uint8)
image = Image.fromarray(pixels)
expected = np.asarray(image.resize((50, 40), Image.Resampling.BICUBIC))
resized = resize(image, (50, 40), (0, 0, 50, 40), "bicubic")
print(is_vectorized(), np.array_equal(resized, expected))
"""
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default"}
    ran = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True
    )
    assert ran.stdout.split() == ["False", "True"], ran.stderr
