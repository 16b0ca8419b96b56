"""Reading masks from PNG files."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from zoo.data.decode import UnreadableImage
from zoo.tasks.segmentation.masks import ColorMask, read_mask

INDICES = np.array([[0, 1, 2, 3], [3, 2, 1, 0], [1, 1, 0, 3]], dtype=np.uint8)


def write_grey(path, indices: np.ndarray, bits: int) -> None:
    """Write a grey PNG of any bit depth; Pillow writes 8 bits only."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    rows = b""
    for row in indices:
        text = "".join(format(int(value), f"0{bits}b") for value in row)
        text = text.ljust(-(-len(text) // 8) * 8, "0")
        rows += b"\0" + bytes(int(text[at : at + 8], 2) for at in range(0, len(text), 8))
    head = struct.pack(">IIBBBBB", indices.shape[1], indices.shape[0], bits, 0, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_read_mask_of_grey_png_returns_indices(tmp_path, bits):
    indices = INDICES % 2 if bits == 1 else INDICES
    write_grey(tmp_path / "a.png", indices, bits)
    mask = read_mask(tmp_path / "a.png")
    assert mask.indices.dtype == np.uint8
    assert (mask.indices == indices).all()
    assert mask.palette == ()


@pytest.mark.parametrize("bits", [2, 8])
def test_read_mask_with_palette_returns_indices_and_colours(tmp_path, bits):
    image = Image.fromarray(INDICES)
    image.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 0, 0, 255])
    image.save(tmp_path / "a.png", bits=bits)
    mask = read_mask(tmp_path / "a.png")
    assert (mask.indices == INDICES).all()
    assert mask.palette[:4] == ("#000000", "#ff0000", "#00ff00", "#0000ff")


def test_read_mask_of_sixteen_bits_returns_indices(tmp_path):
    Image.fromarray(INDICES.astype(np.uint16) * 100).save(tmp_path / "a.png")
    assert (read_mask(tmp_path / "a.png").indices == INDICES.astype(int) * 100).all()


def test_read_mask_applies_exif_orientation(tmp_path):
    image = Image.fromarray(INDICES)
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "a.png", exif=exif)
    assert (read_mask(tmp_path / "a.png").indices == np.rot90(INDICES, -1)).all()


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "LA"])
def test_read_mask_rejects_colour(tmp_path, mode):
    Image.fromarray(INDICES).convert(mode).save(tmp_path / "a.png")
    with pytest.raises(ColorMask, match=f"mode {mode}"):
        read_mask(tmp_path / "a.png")


def test_read_mask_names_unreadable_file(tmp_path):
    Image.fromarray(INDICES).save(tmp_path / "a.jpg")
    Image.fromarray(INDICES).save(tmp_path / "b.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes()[:50])
    for name in ("a.jpg", "b.png", "missing.png"):
        with pytest.raises(UnreadableImage, match=name):
            read_mask(tmp_path / name)
