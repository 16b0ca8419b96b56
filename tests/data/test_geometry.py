import io
import resource

import numpy as np
import pytest
import torch
from PIL import Image

from zoo.data.decode import decode_reduced
from zoo.data.geometry import geometry_of
from zoo.data.transforms import at_least, prepare, prepare_mask
from zoo.spec import Preprocess

SIZES = [(40, 30), (31, 77), (64, 64), (9, 200), (500, 333)]
FILL = 255


def random_mask(size: tuple[int, int]) -> Image.Image:
    values = np.random.default_rng(0).integers(0, 7, size[::-1], dtype=np.uint8)
    return Image.fromarray(values)


@pytest.mark.parametrize("crop", ["center", "squash", "border"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("wanted", "resize"), [(48, 48), (48, 55), (48, 40), ((32, 48), 36)])
def test_masks_go_where_images_go(crop, size, wanted, resize):
    preprocess = Preprocess(wanted, resize, crop=crop, interpolation="nearest")
    mask = random_mask(size)
    as_image = prepare(Image.merge("RGB", [mask] * 3), preprocess)[0]
    prepared = prepare_mask(mask, preprocess, FILL)
    geometry = geometry_of(size, preprocess)
    (left, top), (width, height) = geometry.offset, geometry.cut
    inside = torch.zeros_like(prepared, dtype=torch.bool)
    inside[top : top + height, left : left + width] = True
    assert torch.equal(prepared[inside], as_image[inside])
    assert (prepared[~inside] == FILL).all()


def test_narrow_mask_is_resized_where_it_is_cut():
    # As a whole, it would have 1.5 GB.
    values = np.repeat(np.arange(3, dtype=np.uint8), 10_000)[:, None]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    prepared = prepare_mask(Image.fromarray(values), Preprocess(224, 224), FILL)
    assert prepared.unique().tolist() == [1]
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000


def test_a_reduced_jpeg_has_the_geometry_of_the_whole_one():
    # Two halves, of which the border is seen in image and mask.
    values = np.zeros((1201, 1603), dtype=np.uint8)
    values[:, 700:] = 200
    content = io.BytesIO()
    Image.fromarray(values).convert("RGB").save(content, "JPEG", quality=95)
    preprocess = Preprocess(64, 64, crop="border")
    reduced = decode_reduced(content.getvalue(), at_least(preprocess))
    assert reduced.pixels.size != reduced.size
    image = prepare(reduced, preprocess)[0]
    mask = prepare_mask(Image.fromarray((values > 100).astype(np.uint8)), preprocess, FILL)
    seen = mask != FILL
    agree = ((image > 100) == (mask == 1))[seen].float().mean()
    assert seen.sum() == 64 * 48
    assert agree == 1.0
