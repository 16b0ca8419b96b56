"""JPEGs decoded at a reduced scale: their size, position and content."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.data.encoding import ORIENTATIONS, encoded
from zoo.data.decode import UnreadableImage, decode, decode_reduced


def waves(width: int, height: int) -> Image.Image:
    """Return a smooth image without symmetry or repetition."""
    x, y = np.arange(width) / 160, np.arange(height)[:, None] / 110
    planes = [np.sin(6 * x + y), np.cos(5 * y - 2 * x), np.sin(x * x + 3 * y)]
    return Image.fromarray((np.stack(planes, axis=-1) * 100 + 128).astype(np.uint8))


@pytest.mark.parametrize(
    ("at_least", "scale"), [(65, 8), (66, 4), (131, 4), (132, 2), (262, 2), (263, 1), (5000, 1)]
)
def test_decode_reduced_picks_smallest_sufficient_scale(at_least: int, scale: int) -> None:
    image = decode_reduced(encoded(waves(803, 525), "JPEG"), (at_least, at_least))
    assert image.size == (803, 525)
    assert image.pixels.size == (-(-803 // scale), -(-525 // scale))
    assert image.box == (0, 0, 803 / scale, 525 / scale)
    assert (image.pixels.size != image.size) is (scale > 1)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("size", [(803, 525), (805, 527), (801, 528)])
def test_decode_reduced_box_matches_full_resolution(
    orientation: int, size: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    jpeg = encoded(waves(*size), "JPEG", exif=exif, quality=95, subsampling=0)
    whole = decode(jpeg)
    for scale in (2, 4, 8):
        upright = whole.width // scale, whole.height // scale
        image = decode_reduced(jpeg, upright)
        assert image.size == whole.size
        small = image.pixels.resize((20, 15), Image.Resampling.BICUBIC, image.box)
        expected = whole.resize((20, 15), Image.Resampling.BICUBIC)
        # One pixel off would be 4 and more; at the edges the kernel is cut off otherwise.
        off = np.subtract(small, expected, dtype=np.int16)[2:-2, 2:-2]
        assert np.abs(off).max() <= 2
        # Whichever side is the longer one, neither falls below what was asked for.
        assert decode_reduced(jpeg, (upright[0] + 1, 1)).pixels.width > upright[0]


@pytest.mark.parametrize(
    ("mode", "options"),
    [("L", {}), ("CMYK", {}), ("RGB", {"progressive": True}), ("RGB", {"subsampling": 0})],
)
def test_decode_reduced_supports_all_jpeg_modes(mode: str, options: dict[str, object]) -> None:
    jpeg = encoded(waves(800, 600).convert(mode), "JPEG", quality=95, **options)
    image = decode_reduced(jpeg, (200, 150))
    assert (image.pixels.mode, image.pixels.size) == ("RGB", (200, 150))
    expected = decode(jpeg).resize((200, 150), Image.Resampling.BOX)
    assert np.abs(np.subtract(image.pixels, expected, dtype=np.int16)).max() <= 6


def test_decode_reduced_supports_multi_picture_jpeg() -> None:
    frames = waves(800, 600), Image.new("RGB", (800, 600))
    several = encoded(frames[0], "MPO", save_all=True, append_images=frames[1:])
    alone = encoded(frames[0], "JPEG")
    reduced = [decode_reduced(jpeg, (100, 75)).pixels for jpeg in (several, alone)]
    assert np.array_equal(*map(np.asarray, reduced))
    assert reduced[0].size == (100, 75)


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF", "GIF"])
def test_decode_reduced_other_formats_at_full_resolution(kind: str) -> None:
    image = decode_reduced(encoded(waves(320, 200), kind), (10, 10))
    assert image.pixels.size == image.size == (320, 200)
    assert image.pixels.size == image.size


def test_decode_reduced_pil_image_at_full_resolution() -> None:
    lazy = Image.open(io.BytesIO(encoded(waves(320, 200), "JPEG")))
    assert decode_reduced(lazy, (10, 10)).pixels.size == lazy.size == (320, 200)


@pytest.mark.parametrize(
    ("share", "progressive"), [(0.2, False), (0.2, True), (0.5, False), (0.5, True), (0.9, False)]
)
def test_decode_reduced_truncated_jpeg_raises(share: float, progressive: bool) -> None:
    whole = encoded(waves(800, 600), "JPEG", progressive=progressive)
    with pytest.raises(UnreadableImage, match="truncated"):
        decode_reduced(whole[: int(len(whole) * share)], (100, 75))
