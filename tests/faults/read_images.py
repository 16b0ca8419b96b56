"""Read files by zoo or by Pillow alone, and print a row of JSON for each.

Usage: python read_images.py READER FOLDER

A row has what was read: size and sha256 of the pixels as RGB; or the reason why it was not; its
seconds, and by how many MiB the memory of the process grew.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps


def read_by_pillow(path: Path) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    with Image.open(path) as image:
        found = {"format": image.format, "mode": image.mode}
        image.load()
        upright = ImageOps.exif_transpose(image)
        found["size"] = upright.size
        if upright.mode.startswith(("I", "F")):  # their values are scaled
            return found
        if upright.has_transparency_data:
            alpha = upright.convert("RGBA")
            white = Image.new("RGBA", alpha.size, "white")
            upright = Image.alpha_composite(white, alpha)
        return found | {"pixels": digest(upright.convert("RGB"))}


def read_by_zoo(path: Path) -> dict[str, Any]:
    from zoo.data.decode import UnreadableImage, decode, decode_reduced, read_size

    try:
        image = decode(path)
    except UnreadableImage as error:
        return {"reason": error.reason, "named": str(path) in str(error)}
    sizes = [image.size, decode_reduced(path, (1, 1)).size, read_size(path)]
    return {"size": image.size, "sizes": sizes, "pixels": digest(image)}


def digest(image: Image.Image) -> str:
    return sha256(image.tobytes()).hexdigest()


def memory(field: str) -> int:
    """Return a field of the memory of this process in KiB."""
    return int(Path("/proc/self/status").read_text().split(f"{field}:")[1].split()[0])


def measured(read: Callable[[Path], dict[str, Any]], path: Path) -> dict[str, Any]:
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before, started = memory("VmRSS"), time.monotonic()
    try:
        row = read(path)
    except Exception as error:
        row = {"raised": f"{type(error).__name__}: {error}"}
    seconds = time.monotonic() - started
    return row | {"seconds": seconds, "mib": (memory("VmHWM") - before) / 1024}


def main(reader: str, folder: str) -> None:
    read = {"zoo": read_by_zoo, "Pillow": read_by_pillow}[reader]
    for path in sorted(Path(folder).rglob("*")):
        if path.is_file():
            row = {"path": str(path.relative_to(folder))} | measured(read, path)
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
