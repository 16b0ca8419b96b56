"""JPEG files decoded by simplejpeg: the bytes of Pillow, and its errors."""

import io
import itertools

import numpy as np
import pytest
from PIL import Image

from tests.data.encoding import ORIENTATIONS, encoded
from zoo.data import jpeg_pixels
from zoo.data.decode import UnreadableImage, decode, decode_reduced
from zoo.data.formats import decoder_versions
from zoo.data.transforms import prepare
from zoo.spec import Preprocess

simplejpeg = pytest.importorskip("simplejpeg")

SIZES = [(64, 48), (97, 131), (16, 33), (333, 250), (9, 200)]
SCALES = [None, (1, 1), (24, 20), (60, 50)]


def scene(width, height, seed=0):
    """Return gradients, edges and noise, in colours of the whole range."""
    random = np.random.default_rng(seed)
    x, y = np.arange(width), np.arange(height)[:, None]
    planes = [255 * x / width + 0 * y, 255 * y / height + 0 * x, 128 + 127 * np.sin(x * y / 90)]
    pixels = np.stack(planes, axis=-1) + random.normal(0, 12, (height, width, 3))
    pixels[height // 3 : height // 2, width // 4 :] = random.integers(0, 256, 3)
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def jpegs(width, height):
    """Yield JPEG files of all kinds, and whether simplejpeg is to decode them."""
    image = scene(width, height)
    for subsampling, progressive in itertools.product((0, 1, 2), (False, True)):
        options = {"subsampling": subsampling, "progressive": progressive}
        for quality in (1, 75, 98):
            yield encoded(image, "JPEG", quality=quality, **options), True
        yield encoded(image, "JPEG", restart_marker_blocks=3, **options), True
        yield encoded(image, "JPEG", restart_marker_rows=1, optimize=True, **options), True
    for subsampling in ("440", "411", "Gray"):
        content = simplejpeg.encode_jpeg(np.asarray(image), colorsubsampling=subsampling)
        yield content, True
    yield encoded(image, "JPEG", keep_rgb=True), True  # with Adobe's marker
    yield encoded(image, "JPEG", comment=b"x" * 70, icc_profile=b"not a profile"), True
    yield encoded(image, "JPEG") + b"after the end", True
    yield encoded(image.convert("L"), "JPEG"), True
    yield encoded(image.convert("L"), "JPEG", progressive=True), True
    yield encoded(image.convert("CMYK"), "JPEG"), False


def both(monkeypatch, read):
    """Return what a function reads by simplejpeg, and by Pillow alone: a value, or a reason."""
    results = []
    for decoder in (jpeg_pixels._decoder, lambda: None):
        with monkeypatch.context() as patched:
            patched.setattr(jpeg_pixels, "_decoder", decoder)
            try:
                results.append(read())
            except UnreadableImage as error:
                results.append(error.reason)
    return results


def assert_same(one, other):
    assert np.array_equal(one.pixels, other.pixels)
    assert (one.size, one.box, one.incomplete) == (other.size, other.box, other.incomplete)
    assert (one.pixels.mode, one.pixels.info) == ("RGB", {})


@pytest.mark.parametrize("size", SIZES)
def test_pixels_are_those_of_pillow(size, monkeypatch):
    for content, fast in jpegs(*size):
        for least in SCALES:
            one, other = both(monkeypatch, lambda: decode_reduced(content, least))  # noqa: B023
            assert_same(one, other)
            small = min(one.pixels.size) < jpeg_pixels.MIN_SIZE
            assert isinstance(one.decoded, np.ndarray) is (fast and not small)
            assert isinstance(other.decoded, Image.Image)


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_orientation_of_fast_pixels_is_applied(orientation, monkeypatch):
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(scene(97, 131), "JPEG", exif=exif)
    for least in SCALES:
        assert_same(*both(monkeypatch, lambda: decode_reduced(content, least)))  # noqa: B023


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
def test_prepared_fast_pixels_are_the_same(interpolation, monkeypatch):
    preprocess = Preprocess(32, resize=40, interpolation=interpolation)
    for size in SIZES:
        content = encoded(scene(*size), "JPEG")
        for least in SCALES:
            one, other = both(
                monkeypatch,
                lambda: prepare(decode_reduced(content, least), preprocess),  # noqa: B023
            )
            assert np.array_equal(one, other)


@pytest.mark.parametrize("progressive", [False, True])
def test_damaged_file_is_what_pillow_makes_of_it(progressive, monkeypatch):
    random = np.random.default_rng(1)
    whole = encoded(scene(97, 131), "JPEG", progressive=progressive, restart_marker_rows=2)
    results = []
    for number in range(150):
        content = bytearray(whole)
        if number % 3:
            for place in random.integers(2, len(content), number % 5 + 1):
                content[place] = random.integers(256)
        else:
            del content[random.integers(len(content)) :]
        one, other = both(monkeypatch, lambda: decode_reduced(bytes(content), None))  # noqa: B023
        if isinstance(other, str):
            assert one == other
        else:
            assert_same(one, other)
        results.append(type(other))
    assert min(results.count(str), len(results) - results.count(str)) > 20


def test_sources_and_ranges_are_read_alike(tmp_path, monkeypatch):
    content = encoded(scene(64, 48), "JPEG")
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    ranges = (("uint8", 0.0, 200.0),)

    class Stream(io.BytesIO):
        def seekable(self):
            return False

    for source in (path, str(path), content, io.BytesIO(content)):
        for given in ((), ranges):
            one, other = both(monkeypatch, lambda: decode(source, given))  # noqa: B023
            assert np.array_equal(one, other)
    with path.open("rb") as file:
        assert np.array_equal(decode(file), decode(content))
    streamed = both(monkeypatch, lambda: decode(Stream(content)))
    assert all(np.array_equal(each, decode(content)) for each in streamed)
    with Image.open(io.BytesIO(content)) as opened:
        assert np.array_equal(decode(opened), decode(content))


def test_image_of_more_pixels_than_the_limit_is_refused(monkeypatch):
    monkeypatch.setattr("zoo.data.decode.MAX_PIXELS", 3000)
    content = encoded(scene(64, 48), "JPEG")
    one, other = both(monkeypatch, lambda: decode(content))
    assert one == other == "64 x 48 are more than 3,000"


def test_version_of_decoder_is_a_fact_of_features():
    assert decoder_versions()["simplejpeg"] == simplejpeg.__version__
