"""The share of images that a crop cuts away, and its notice."""

import numpy as np
import pytest
from PIL import Image

from zoo.data.cropping import crop_notice, share_cut_away
from zoo.data.split import FileSplit
from zoo.data.transforms import prepare
from zoo.spec import Preprocess

CENTER = Preprocess(size=224, resize=256)


def split_of(folder, sizes):
    for number, size in enumerate(sizes):
        Image.new("RGB", size).save(folder / f"{number}.png")
    names = tuple(f"{number}.png" for number in range(len(sizes)))
    return FileSplit("train", folder, names, (0,) * len(sizes))


@pytest.mark.parametrize(
    ("size", "share"),
    [((224, 224), 1 - 0.875**2), ((640, 160), 1 - 0.875**2 / 4), ((160, 640), 1 - 0.875**2 / 4)],
)
def test_share_cut_away_by_center_crop(size, share):
    assert share_cut_away(size, CENTER) == pytest.approx(share, abs=1e-3)


@pytest.mark.parametrize("crop", ["squash", "border"])
def test_whole_images_lose_nothing(crop):
    assert share_cut_away((640, 160), Preprocess(size=224, crop=crop)) == 0


def test_share_cut_away_matches_prepared_pixels():
    """The columns that remain of a gradient over the width."""
    gradient = np.linspace(0, 255, 400)[None, :, None].repeat(100, 0).repeat(3, 2)
    image = Image.fromarray(gradient.round().astype(np.uint8))
    preprocess = Preprocess(size=64, resize=64)
    row = prepare(image, preprocess)[0, 32].double()
    left = (row[-1] - row[0]).item() / 255
    assert 1 - left == pytest.approx(share_cut_away(image.size, preprocess), abs=0.02)


def test_notice_states_the_share_of_most_images(tmp_path):
    notice = crop_notice(split_of(tmp_path, [(640, 160)] * 2 + [(200, 200)]), CENTER)
    assert notice == (
        "the center crop cuts away 81 % of the area of most images; --crop squash or --crop border "
        "uses whole images"
    )


@pytest.mark.parametrize(
    ("sizes", "preprocess"),
    [
        ([(640, 160)] + [(200, 200)] * 2, CENTER),  # one of three
        ([(400, 300)] * 3, CENTER),  # an ordinary photograph
        ([(640, 160)] * 3, Preprocess(size=224, crop="squash")),
    ],
)
def test_little_cut_away_is_no_notice(tmp_path, sizes, preprocess):
    assert crop_notice(split_of(tmp_path, sizes), preprocess) is None


def test_unreadable_images_are_left_to_the_reader(tmp_path):
    split = split_of(tmp_path, [(640, 160)] * 2)
    (tmp_path / "0.png").write_bytes(b"no image")
    assert "81 %" in crop_notice(split, CENTER)
