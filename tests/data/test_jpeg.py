"""JPEG files that lack their last bytes."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import zoo.data
from tests.data.encoding import encoded
from zoo.data.decode import UnreadableImage, decode, decode_reduced

PHOTO = next((Path(next(iter(zoo.data.__path__))) / "clipart10/train/bird").glob("owl*.jpg"))


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    grain = Image.fromarray(values)
    with Image.open(PHOTO) as image:
        return Image.blend(image.convert("RGB").resize((320, 240)), grain, 0.2)


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"restart_marker_rows": 1}])
@pytest.mark.parametrize("cut", [1, 2, 3, 7, 20, 100])
def test_jpeg_without_last_bytes_is_decoded(photo, options, cut):
    whole = encoded(photo, "JPEG", **options)
    decoded = decode_reduced(whole[:-cut], None)
    assert decoded.incomplete
    expected = np.asarray(Image.open(io.BytesIO(whole)))
    differs = (np.asarray(decoded.pixels) != expected).any(axis=-1)
    assert differs.mean() <= 0.05
    # What the cut bytes do not reach is exact: with colour subsampled, one row above the last 48.
    assert not differs[: 240 - 49].any()


@pytest.mark.parametrize("cut", [1, 3, 50, 500])
def test_progressive_jpeg_without_last_bytes_is_decoded(photo, cut):
    whole = encoded(photo, "JPEG", progressive=True)
    decoded = decode_reduced(whole[:-cut], None)
    assert decoded.incomplete
    expected = np.asarray(Image.open(io.BytesIO(whole)), dtype=int)
    assert np.abs(np.asarray(decoded.pixels) - expected).mean() < 2


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.5])
def test_jpeg_that_lacks_more_raises(photo, share, progressive):
    whole = encoded(photo, "JPEG", progressive=progressive)
    with pytest.raises(UnreadableImage, match="truncated"):
        decode(whole[: int(len(whole) * share)])


def test_baseline_jpeg_without_a_tenth_raises(photo):
    whole = encoded(photo, "JPEG")
    with pytest.raises(UnreadableImage, match="truncated"):
        decode(whole[: int(len(whole) * 0.9)])


def test_whole_jpeg_is_not_incomplete(photo, tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(encoded(photo, "JPEG"))
    assert not decode_reduced(path, None).incomplete
    path.write_bytes(path.read_bytes()[:-2])
    assert decode_reduced(path, None).incomplete
    # Reading the header or a small version accepts the same files.
    assert decode_reduced(path, (40, 30)).incomplete
    assert decode_reduced(path, (40, 30)).size == (320, 240)
