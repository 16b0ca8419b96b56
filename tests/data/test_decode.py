import io
import os
import pickle
import socket
import struct
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile
from PIL.PngImagePlugin import PngInfo

from tests.data.encoding import ORIENTATIONS, encoded
from zoo.data.decode import MAX_PIXELS, UnreadableImage, decode, read_size
from zoo.errors import DataError

RED, GREEN, BLUE, WHITE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255,) * 3, (0,) * 3


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png(width: int, height: int, depth: int, color: int, rows: bytes, *extra: bytes) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(rows))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b"")


def with_broken_exif(image: Image.Image) -> bytes:
    return encoded(image, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")


def pixels(image: Image.Image) -> list[tuple[int, ...]]:
    assert image.mode == "RGB"
    return [tuple(pixel) for pixel in np.asarray(image).reshape(-1, 3).tolist()]


def reason(source: str | Path | bytes) -> str:
    with pytest.raises(UnreadableImage) as caught:
        decode(source)
    assert "\n" not in str(caught.value)
    return caught.value.reason


@pytest.fixture
def noise() -> Image.Image:
    values = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    return Image.fromarray(values)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_decode_lossless_formats_are_exact(noise: Image.Image, kind: str) -> None:
    assert np.array_equal(np.asarray(decode(encoded(noise, kind))), np.asarray(noise))


@pytest.mark.parametrize(("kind", "options"), [("JPEG", {}), ("WEBP", {"lossless": True})])
def test_decode_source_types_are_equivalent(
    tmp_path: Path, noise: Image.Image, kind: str, options: dict[str, object]
) -> None:
    path = tmp_path / "image.bin"
    path.write_bytes(encoded(noise, kind, **options))
    expected = pixels(Image.open(path).convert("RGB"))
    with path.open("rb") as file:
        sources = [str(path), path, path.read_bytes(), file, Image.open(path)]
        assert all(pixels(decode(source)) == expected for source in sources)


# Pixels after each EXIF orientation of an image whose rows are "rg" and "bw".


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_orientation_is_applied_once(kind: str, orientation: int) -> None:
    image = Image.new("RGB", (2, 2))
    for position, color in zip(
        [(0, 0), (1, 0), (0, 1), (1, 1)], [RED, GREEN, BLUE, WHITE], strict=True
    ):
        image.putpixel(position, color)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    decoded = decode(encoded(image, kind, exif=exif, **options))
    letters = {RED: "r", GREEN: "g", BLUE: "b", WHITE: "w"}
    assert "".join(letters[pixel] for pixel in pixels(decoded)) == ORIENTATIONS[orientation]
    assert pixels(decode(decoded)) == pixels(decoded)


def exif_behind_pixels(content: bytes, exif: bytes) -> bytes:
    """Return a PNG with the metadata of orientation after its pixels."""
    end = content.rindex(b"IEND") - 4
    return content[:end] + chunk(b"eXIf", exif) + content[end:]


def test_size_of_header_is_that_of_decoded(tmp_path: Path, noise: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    xmp = '<rdf:Description tiff:Orientation="6"/>'
    info = PngInfo()
    info.add_itxt("XML:com.adobe.xmp", xmp)
    files = {
        "exif.png": encoded(noise, "PNG", exif=exif),
        "behind.png": exif_behind_pixels(encoded(noise, "PNG"), exif.tobytes()[6:]),
        "xmp.png": encoded(noise, "PNG", pnginfo=info),
        "xmp.jpg": encoded(noise, "JPEG", xmp=xmp.encode()),
        "exif.tif": encoded(noise, "TIFF", exif=exif),
    }
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
        assert read_size(tmp_path / name) == decode(tmp_path / name).size == (64, 96), name
    (tmp_path / "plain.png").write_bytes(encoded(noise, "PNG"))
    assert read_size(tmp_path / "plain.png") == noise.size


def test_orientation_of_jpeg_swaps_sides(noise: Image.Image) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    assert decode(encoded(noise, "JPEG", exif=exif)).size == (64, 96)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_corrupt_exif_is_ignored(noise: Image.Image) -> None:
    assert decode(with_broken_exif(noise)).size == noise.size


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA", "RGBa", "La"])
def test_alpha_is_composited_over_white(mode: str) -> None:
    # Before 12.0, Pillow's conversion from RGBA to PA drops the alpha channel.
    drawn = mode if mode == "PA" else "RGBA" if mode.startswith("R") else "LA"
    image = Image.new(drawn, (3, 1))
    if drawn == "PA":
        image.putpalette([0, 0, 0])
    for x, alpha in enumerate([0, 255, 128]):
        image.putpixel((x, 0), (0, 0, 0, alpha) if image.mode == "RGBA" else (0, alpha))
    clear, opaque, half = pixels(decode(image.convert(mode)))
    assert (clear, opaque) == (WHITE, BLACK)
    assert all(abs(value - 127) <= 1 for value in half)


def test_palette_transparency_is_composited() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*RED, *BLUE])
    image.putpixel((1, 0), 1)
    assert pixels(decode(encoded(image, "PNG"))) == [RED, BLUE]
    assert pixels(decode(encoded(image, "PNG", transparency=1))) == [RED, WHITE]
    assert pixels(decode(encoded(image, "PNG", transparency=b"\xff\x00"))) == [RED, WHITE]
    assert pixels(decode(encoded(image, "GIF", transparency=0))) == [WHITE, BLUE]


def test_transparent_color_of_grey_and_rgb_png() -> None:
    grey = png(2, 1, 8, 0, b"\0\x00\x40", chunk(b"tRNS", b"\0\0"))
    assert pixels(decode(grey)) == [WHITE, (64,) * 3]
    color = png(2, 1, 8, 2, bytes([0, *RED, *BLUE]), chunk(b"tRNS", bytes([0, 255, 0, 0, 0, 0])))
    assert pixels(decode(color)) == [WHITE, BLUE]
    deep = png(2, 1, 16, 0, b"\0" + struct.pack(">HH", 0, 300), chunk(b"tRNS", b"\0\0"))
    assert pixels(decode(deep)) == [WHITE, (1,) * 3]


def test_grey_and_one_bit_become_rgb() -> None:
    assert pixels(decode(encoded(Image.new("L", (1, 1), 77), "PNG"))) == [(77,) * 3]
    bits = Image.new("1", (2, 1))
    bits.putpixel((1, 0), 1)
    assert pixels(decode(encoded(bits, "PNG"))) == [BLACK, WHITE]


def test_cmyk_jpeg_is_not_inverted() -> None:
    cmyk = Image.new("RGB", (32, 32), RED).convert("CMYK")
    red, green, blue = pixels(decode(encoded(cmyk, "JPEG", quality=100)))[100]
    assert red > 245
    assert max(green, blue) < 10


@pytest.mark.parametrize("mode", ["YCbCr", "HSV", "LAB"])
def test_other_color_spaces_become_rgb(mode: str) -> None:
    color = (200, 60, 40)
    if mode == "LAB":
        # L* 47, a* 55, b* 45 under D50, as bytes: L* x 2.55, then two signed numbers.
        image = Image.frombytes("LAB", (1, 1), bytes([121, 55, 45]))
    else:
        image = Image.new("RGB", (1, 1), color).convert(mode)
    assert np.abs(np.subtract(pixels(decode(image))[0], color)).max() <= 6


@pytest.mark.parametrize("mode", ["I;16", "I;16B", "I;16L"])
def test_16_bit_grey_is_scaled_not_clipped(mode: str) -> None:
    values = np.array([[0, 257, 32768, 65535]], dtype=">u2" if mode == "I;16B" else "<u2")
    image = Image.frombytes(mode, (4, 1), values.tobytes())
    assert [pixel[0] for pixel in pixels(decode(image))] == [0, 1, 128, 255]


def test_16_bit_png_grey_and_rgb() -> None:
    grey = png(3, 1, 16, 0, b"\0" + struct.pack(">3H", 0, 32768, 65535))
    assert [pixel[0] for pixel in pixels(decode(grey))] == [0, 128, 255]
    dark = png(2, 1, 16, 0, b"\0" + struct.pack(">2H", 0, 200))
    assert [pixel[0] for pixel in pixels(decode(dark))] == [0, 1]
    color = png(1, 1, 16, 2, b"\0" + struct.pack(">3H", 65535, 32896, 0))
    assert pixels(decode(color)) == [(255, 128, 0)]


def test_16_bit_pgm_has_a_fixed_range() -> None:
    dark = b"P5 2 1 65535\n" + struct.pack(">2H", 0, 514)
    assert [pixel[0] for pixel in pixels(decode(dark))] == [0, 2]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 40.0, 200.4], [0, 40, 200]),
        ([0.0, 32768.0, 65535.0], [0, 128, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([0.0, 1e6, 2e6], [0, 128, 255]),
        ([float("nan"), float("inf"), 1.0], [0, 0, 255]),
        ([float("nan"), float("-inf"), -1000.0, 1000.0], [0, 0, 0, 255]),
        ([float("nan"), 1e6, 2e6], [0, 0, 255]),
        ([float("nan"), float("nan")], [0, 0]),
        ([-3.0, -3.0, -3.0], [0, 0, 0]),
    ],
)
def test_float_tiff_range(values: list[float], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype=np.float32))
    assert [pixel[0] for pixel in pixels(decode(encoded(image, "TIFF")))] == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 7, 255], [0, 7, 255]),
        ([0, 32768, 65535], [0, 128, 255]),
        ([-100, 0, 100], [0, 128, 255]),
    ],
)
def test_integer_tiff_range(values: list[int], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], dtype=np.int32))
    assert [pixel[0] for pixel in pixels(decode(encoded(image, "TIFF")))] == expected


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_animation_decodes_first_frame(kind: str) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in (RED, BLUE, GREEN)]
    options = {"lossless": True} if kind == "WEBP" else {}
    moving = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert set(pixels(decode(moving))) == {RED}


def test_decode_does_not_modify_pil_image() -> None:
    image = Image.new("RGB", (2, 2), RED)
    image.info["note"] = "mine"
    decode(image).putpixel((0, 0), BLUE)
    assert image.getpixel((0, 0)) == RED
    assert image.info == {"note": "mine"}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
@pytest.mark.parametrize("share", [0.5, 0.95])
def test_truncated_file_raises(tmp_path: Path, noise: Image.Image, kind: str, share: float) -> None:
    whole = encoded(noise, kind)
    path = tmp_path / f"cut.{kind.lower()}"
    path.write_bytes(whole[: int(len(whole) * share)])
    # WebP and TIFF store what is needed to open them where the truncation removes it.
    assert reason(path) in {"truncated", "not an image that zoo reads"} or reason(path).startswith(
        "damaged"
    )
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_truncated_pil_image_raises(noise: Image.Image) -> None:
    lazy = Image.open(io.BytesIO(encoded(noise, "JPEG")[:2000]))
    with pytest.raises(UnreadableImage, match="the image: truncated"):
        decode(lazy)


def test_corrupt_png_data_raises(noise: Image.Image) -> None:
    damaged = bytearray(encoded(noise, "PNG"))
    damaged[len(damaged) // 2] ^= 0xFF
    assert reason(bytes(damaged)).startswith("damaged")


def test_non_image_raises_one_line_message(tmp_path: Path) -> None:
    text = tmp_path / "text.jpg"
    text.write_text("not an image\n" * 100)
    assert reason(text) == "not an image that zoo reads"
    empty = tmp_path / "empty.png"
    empty.touch()
    assert reason(empty) == "the file is empty"
    assert reason(b"") == "the file is empty"
    assert reason(png(0, 0, 8, 2, b"")) == "damaged (no valid PNG header)"
    assert reason(tmp_path) == "it is a folder"
    assert reason(tmp_path / "absent.jpg") == "it does not exist"
    assert reason("a\0b.jpg")
    with pytest.raises(DataError, match=r"cannot read .*text\.jpg: not an image that zoo reads"):
        decode(str(text))


def test_postscript_is_rejected() -> None:
    assert reason(encoded(Image.new("RGB", (4, 4)), "EPS")) == "not an image that zoo reads"


def test_special_files_raise_without_blocking(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.jpg"
    os.mkfifo(pipe)
    assert reason(pipe) == "it is not a regular file"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.jpg"))
        assert reason(tmp_path / "s.jpg") == "it is not a regular file"
    assert reason("/dev/zero") == "it is not a regular file"


def test_link_loop_raises(tmp_path: Path) -> None:
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    assert "symbolic links" in reason(tmp_path / "loop.jpg")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_file_without_permission_raises(tmp_path: Path, noise: Image.Image) -> None:
    path = tmp_path / "closed.png"
    noise.save(path)
    path.chmod(0)
    assert reason(path) == "Permission denied"


@pytest.mark.parametrize("side", [13_400, 30_000, 200_000])
def test_decompression_bomb_raises_before_decoding(side: int) -> None:
    bomb = png(side, side, 8, 2, b"")
    assert len(bomb) < 100
    assert f"{MAX_PIXELS:,}" in reason(bomb)


def test_pillow_warnings_are_suppressed(noise: Image.Image) -> None:
    side = 9_500
    assert Image.MAX_IMAGE_PIXELS is not None
    assert Image.MAX_IMAGE_PIXELS < side * side < MAX_PIXELS
    large = encoded(Image.new("1", (side, side)), "PNG")
    read = "print(decode(sys.stdin.buffer.read()).size)"
    program = f"import sys; from zoo.data.decode import decode; {read}"
    for data, size in [(large, (side, side)), (with_broken_exif(noise), noise.size)]:
        done = subprocess.run([sys.executable, "-c", program], input=data, capture_output=True)
        assert (done.stdout.decode().strip(), done.stderr) == (str(size), b"")


def test_pillow_warning_as_error_is_unreadable_image() -> None:
    large = encoded(Image.new("1", (9_500, 9_500)), "PNG")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "pixels" in reason(large)


def test_unreadable_image_pickles() -> None:
    error = pickle.loads(pickle.dumps(UnreadableImage("a.jpg", "truncated")))
    assert (str(error), error.source, error.reason) == (
        "cannot read a.jpg: truncated",
        "a.jpg",
        "truncated",
    )


def test_decoding_imports_no_torch() -> None:
    program = "import sys, zoo.data.decode, zoo.data.split; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.strip() == "False"
