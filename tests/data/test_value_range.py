"""The range of values that a data set uses."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch.utils.data import Dataset

from zoo.data.decode import decode
from zoo.data.split import FileSplit
from zoo.data.user_dataset import DatasetSplit
from zoo.data.value_range import measure_ranges
from zoo.errors import DataError

RANDOM = np.random.default_rng(0)


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def deep_png(array) -> bytes:
    """Encode `[height, width, channels]` of 16 bits, which Pillow cannot write in colour."""
    height, width, channels = array.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    color = {2: 4, 3: 2, 4: 6}[channels]
    header = struct.pack(">IIBBBBB", width, height, 16, color, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def write(folder: Path, arrays, suffix=".png") -> FileSplit:
    paths = []
    for number, array in enumerate(arrays):
        path = folder / f"{number}{suffix}"
        if array.ndim == 3 and array.dtype == np.uint16:
            path.write_bytes(deep_png(array))
        else:
            Image.fromarray(array).save(path)
        paths.append(path.name)
    return FileSplit("train", folder, tuple(paths), (0,) * len(paths))


def drawn(dtype, low, high, *shape):
    """Return random values that include the smallest and the largest."""
    values = RANDOM.uniform(low, high, shape or (16, 16))
    values.flat[0], values.flat[-1] = low, high
    return (values if np.dtype(dtype).kind == "f" else values.round()).astype(dtype)


def grey(image: Image.Image):
    return np.asarray(image)[..., 0].astype(int)


@pytest.mark.parametrize(
    ("dtype", "suffix", "low", "high", "expected"),
    [
        ("uint16", ".png", 0, 1000, (0, 1023)),
        ("uint16", ".tif", 3, 4000, (0, 4095)),
        ("uint16", ".png", 0, 16000, (0, 16383)),
        ("uint16", ".png", 0, 200, (0, 255)),
        ("uint16", ".png", 0, 1, (0, 1)),
        ("uint16", ".tif", 29000, 31000, (29000, 31000)),
        ("int32", ".tif", 0, 4000, (0, 4095)),
        ("int32", ".tif", -1000, 3000, (-1000, 3000)),
        ("float32", ".tif", 0.0, 0.9, (0, 1)),
        ("float32", ".tif", 0.0, 60000.0, (0, 65535)),
        ("uint8", ".png", 0, 1, (0, 1)),
        ("uint8", ".png", 0, 15, (0, 15)),
        ("uint8", ".bmp", 100, 110, (100, 110)),
    ],
)
def test_range_is_that_of_the_values(tmp_path, dtype, suffix, low, high, expected):
    # The range is that of all images: the first is much darker.
    middle = low + (high - low) // 2 if dtype != "float32" else low + (high - low) / 2
    arrays = [drawn(dtype, low, middle), drawn(dtype, low, high)]
    split = write(tmp_path, arrays, suffix)
    ranges = measure_ranges([split])
    assert ranges == ((dtype, *map(float, expected)),)
    black, white = expected
    for index, array in enumerate(arrays):
        values = (array.astype(np.float64) - black) * 255 / (white - black)
        assert np.abs(grey(split.with_ranges(ranges).image(index)) - values).max() <= 0.5


def deep_tiff(array, compression: int) -> bytes:
    """Encode `[height, width, channels]` of 16 bits in one strip; compression 1 or 8."""
    height, width, channels = array.shape
    data = array.astype("<u2").tobytes()
    data = zlib.compress(data) if compression == 8 else data
    start = 8 + 2 + 12 * (9 + (channels == 4)) + 4
    entries = [
        *((256, 3, 1, width), (257, 3, 1, height), (258, 3, channels, start)),
        *((259, 3, 1, compression), (262, 3, 1, 2), (273, 4, 1, start + 2 * channels)),
        *((277, 3, 1, channels), (278, 3, 1, height), (279, 4, 1, len(data))),
        *([(338, 3, 1, 2)] if channels == 4 else []),
    ]
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    head = b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4)
    return head + struct.pack(f"<{channels}H", *[16] * channels) + data


@pytest.mark.parametrize("channels", [3, 4])
@pytest.mark.parametrize("encode", [deep_png, lambda a: deep_tiff(a, 1), lambda a: deep_tiff(a, 8)])
def test_colour_of_12_bits_keeps_its_depth(tmp_path, channels, encode):
    array = drawn("uint16", 0, 4000, 16, 16, channels)
    array[..., 3:] = 65535
    (tmp_path / "deep.tif").write_bytes(encode(array))
    split = FileSplit("train", tmp_path, ("deep.tif",), (0,))
    ranges = measure_ranges([split])
    assert ranges == (("uint16", 0.0, 4095.0),)
    scaled = np.asarray(split.with_ranges(ranges).image(0)).astype(int)
    assert np.abs(scaled - array[..., :3] * (255 / 4095)).max() <= 0.5
    assert len(np.unique(np.asarray(split.image(0)))) <= 17


@pytest.mark.parametrize(
    "array",
    [
        drawn("uint16", 0, 65535),
        drawn("uint16", 0, 20000),
        drawn("uint16", 0, 65535, 16, 16, 3),
        drawn("uint8", 0, 255),
        drawn("uint8", 0, 255, 16, 16, 3),
        np.zeros((16, 16), np.uint16),
    ],
)
def test_full_range_is_decoded_as_before(tmp_path, array):
    split = write(tmp_path, [array])
    assert measure_ranges([split]) == ()
    with Image.open(split.path(0)) as image:
        kept = image.mode
    assert kept in ("I;16", "RGB", "L")
    if array.dtype == np.uint16 and array.ndim == 2:
        assert np.array_equal(grey(split.image(0)), np.rint(array * (255.0 / 65535)).astype(int))


def test_full_ranges_end_the_measurement(tmp_path):
    arrays = [drawn("uint8", 0, 255) for _ in range(3)]
    split = write(tmp_path, arrays)
    for path in split.paths[1:]:
        # The header states 8 bits, and nothing after it is read.
        (tmp_path / path).write_bytes((tmp_path / path).read_bytes()[:30])
    assert measure_ranges([split]) == ()
    dark = write(tmp_path, [drawn("uint16", 0, 4095), *arrays])
    assert measure_ranges([dark]) == (("uint16", 0.0, 4095.0),)


def test_dark_png_beside_jpeg_is_not_scaled(tmp_path):
    split = write(tmp_path, [drawn("uint8", 0, 15)])
    Image.fromarray(drawn("uint8", 0, 255)).save(tmp_path / "photo.jpg")
    both = FileSplit("train", tmp_path, (*split.paths, "photo.jpg"), (0, 0))
    assert measure_ranges([both]) == ()


def test_other_images_leave_the_range_of_8_bits(tmp_path):
    """Neither a damaged file nor a skipped one of 16 bits is an image that uses 8 bits in full."""
    deep = [np.array([[0, 65535]], np.uint16)] * 2
    split = write(tmp_path, [*deep, np.array([[0, 15]], np.uint8)])
    (tmp_path / "damaged.png").write_bytes(b"no image")
    paths = ("damaged.png", *split.paths, "damaged.png")
    ranges = measure_ranges([FileSplit("train", tmp_path, paths, (0,) * 5)])
    assert ranges == (("uint8", 0.0, 15.0),)
    Image.new("P", (4, 4)).save(tmp_path / "palette.png")
    both = FileSplit("train", tmp_path, (*paths, "palette.png"), (0,) * 6)
    assert measure_ranges([both]) == ()


def test_values_outside_of_the_range_are_clipped(tmp_path):
    split = write(tmp_path, [np.array([[0, 4095, 9000]], np.uint16)])
    assert grey(split.with_ranges((("uint16", 0.0, 4095.0),)).image(0)).tolist() == [[0, 255, 255]]
    floats = np.array([[np.nan, -1.0, 0.5, 2.0, np.inf]], np.float32)
    image = decode(Image.fromarray(floats), (("float32", 0.0, 1.0),))
    assert grey(image).tolist()[0] == [0, 0, 128, 255, 255]


class Arrays(Dataset):
    def __init__(self, arrays):
        self.arrays = arrays
        self.reads = 0

    def __len__(self):
        return len(self.arrays)

    def __getitem__(self, index):
        self.reads += 1
        return self.arrays[index], 0


def test_arrays_of_a_dataset_are_scaled_alike():
    for shape in ((16, 16), (16, 16, 3)):
        arrays = [drawn("uint16", 0, high, *shape) for high in (1000, 4000)]
        split = DatasetSplit("train", Arrays(arrays), (0, 1), (0, 0))
        ranges = measure_ranges([split])
        assert ranges == (("uint16", 0.0, 4095.0),)
        image, _ = split.with_ranges(ranges).sample(0)
        values = np.asarray(image).reshape(16, 16, -1)[..., 0].astype(int)
        first = arrays[0].reshape(16, 16, -1)[..., 0]
        assert np.abs(values - first * (255 / 4095)).max() <= 0.5


@pytest.mark.parametrize(
    ("dtype", "kind"), [("float64", "float32"), ("int16", "int32"), ("uint32", "int32")]
)
def test_arrays_of_other_types_are_scaled_alike(dtype, kind):
    arrays = [drawn(dtype, 0, high) for high in (100, 3000)]
    split = DatasetSplit("train", Arrays(arrays), (0, 1), (0, 0))
    ranges = measure_ranges([split])
    assert ranges == ((kind, 0.0, 4095.0),)
    tallest = [grey(split.with_ranges(ranges).sample(index)[0]).max() for index in (0, 1)]
    assert tallest == [round(100 * 255 / 4095), round(3000 * 255 / 4095)]


def test_alpha_of_arrays_does_not_widen_the_range():
    array = np.dstack([drawn("uint16", 0, 4000, 16, 16, 3), np.full((16, 16), 65535, np.uint16)])
    split = DatasetSplit("train", Arrays([array]), (0,), (0,))
    assert measure_ranges([split]) == (("uint16", 0.0, 4095.0),)


class Opened(Arrays):
    """Images as Pillow opens them, not loaded yet."""

    def __getitem__(self, index):
        return Image.open(io.BytesIO(self.arrays[index])), 0


def test_opened_colour_has_the_range_of_its_pixels():
    # Pillow returns the upper 8 bits of 16, which are those that are measured.
    files = [deep_png(drawn("uint16", 0, high, 16, 16, 3)) for high in (65535, 4095)]
    for content, expected in zip(files, [(), (("uint8", 0.0, 15.0),)], strict=True):
        split = DatasetSplit("train", Opened([content]), (0,), (0,))
        ranges = measure_ranges([split])
        assert ranges == expected
        assert grey(split.with_ranges(ranges).sample(0)[0]).max() == 255


def test_damaged_image_of_a_dataset_is_not_measured():
    whole = deep_png(drawn("uint16", 0, 65535, 16, 16, 3))
    split = DatasetSplit("train", Opened([whole[:200]]), (0,), (0,))
    assert measure_ranges([split]) == ()
    with pytest.raises(DataError, match="truncated"):
        split.sample(0)


def test_few_items_of_a_usual_dataset_are_read():
    arrays = Arrays([drawn("uint8", 0, 255, 8, 8, 3) for _ in range(30)])
    split = DatasetSplit("train", arrays, tuple(range(30)), (0,) * 30)
    assert measure_ranges([split]) == ()
    assert arrays.reads == 8


def test_borrowed_image_is_not_changed():
    image = Image.fromarray(drawn("uint8", 0, 15))
    before = image.tobytes()
    buffer = io.BytesIO()
    decode(image, (("uint8", 0.0, 15.0),)).save(buffer, "PNG")
    assert image.tobytes() == before
    assert grey(decode(buffer.getvalue())).max() == 255
