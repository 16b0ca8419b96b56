"""What Pillow and the libraries below it print of a file reaches nobody."""

import io
import logging
import struct
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.data.encoding import encoded
from tests.data.test_decode import chunk, png

READ = {
    "Pillow": "from PIL import Image; Image.open(sys.argv[1]).load()",
    "zoo": "from zoo.data.decode import decode; decode(sys.argv[1])",
}
PROGRAM = "import sys\ntry:\n    {}\nexcept Exception as error:\n    print(error)"


def invalid_animation() -> bytes:
    return png(1, 1, 8, 0, b"\0\0", chunk(b"acTL", bytes(8)))


def samples_per_pixel(count: int) -> bytes:
    entries = [(256, 1), (257, 1), (258, 8), (277, count), (278, 1), (279, 1)]
    rows = b"".join(struct.pack("<HHII", tag, 3, 1, value) for tag, value in entries)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + rows + bytes(8)


def damaged_lzw() -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    content = bytearray(encoded(Image.fromarray(noise), "TIFF", compression="tiff_lzw"))
    content[20:2000] = b"\xff" * 1980
    return bytes(content)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (invalid_animation(), "Invalid APNG"),
        (samples_per_pixel(65535), "More samples per pixel"),
        (damaged_lzw(), "tempfile.tif: "),
    ],
    ids=["warnings", "logging", "libtiff"],
)
def test_messages_of_libraries_are_suppressed(content, message, tmp_path):
    path = tmp_path / "image"
    path.write_bytes(content)
    printed = {}
    for reader, line in READ.items():
        command = [sys.executable, "-c", PROGRAM.format(line), path]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        printed[reader] = done.stderr
    assert message in printed["Pillow"]
    assert printed["zoo"] == ""


def test_log_handlers_of_application_get_messages(caplog):
    with caplog.at_level(logging.ERROR), pytest.raises(OSError, match="cannot identify"):
        Image.open(io.BytesIO(samples_per_pixel(65535)))
    assert "More samples per pixel" in caplog.text
