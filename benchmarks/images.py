"""Write the images that the benchmarks train on: Debian's clip art as JPEG files.

    uv run python benchmarks/images.py [--work DIR] [--each 200 40]

Deterministic: 10 classes, 500 x 375 pixels, quality 90, with sensor-like noise, so that size and
decoding time of a file are those of a photograph. The drawings are from the package
`openclipart-png`, downloaded by `apt-get download`, or given by `--package FILE`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import tempfile
import warnings
import zlib
from collections import Counter
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from PIL import Image

PACKAGE = "openclipart-png"
DRAWINGS = Path("usr/share/openclipart/png")
CLASSES = 10
PER_CLASS = (200, 40)
SIZE = (500, 375)
MAX_PIXELS = 8_000_000
NOISE_STD = 12.0
SUMMARY = "summary.json"
WORK = Path(tempfile.gettempdir()) / "zoo-benchmarks"


class ImagesUnavailable(SystemExit):
    """The images cannot be written; the message has the reason."""


def fetch(work: Path, package: Path | None = None) -> Path:
    """Return the folder of the unpacked drawings.

    Raises:
        ImagesUnavailable: the package cannot be downloaded or unpacked.
    """
    unpacked = work / "clipart"
    if (unpacked / DRAWINGS).is_dir():
        return unpacked / DRAWINGS
    for tool in ("dpkg",) if package else ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            hint = "run on Debian or a derivative"
            if tool == "apt-get":
                hint = "download it elsewhere and give --package FILE"
            raise ImagesUnavailable(
                f"{tool} is not installed, and the images need Debian's {PACKAGE}; {hint}"
            )
    work.mkdir(parents=True, exist_ok=True)
    deb = package or _download(work)
    partial = work / "clipart.partial"
    shutil.rmtree(partial, ignore_errors=True)
    unpack = subprocess.run(["dpkg", "-x", deb, partial], capture_output=True, text=True)
    if unpack.returncode or not (partial / DRAWINGS).is_dir():
        reason = unpack.stderr.strip() or f"it contains no {DRAWINGS}"
        raise ImagesUnavailable(f"cannot unpack {deb}: {reason}")
    partial.rename(unpacked)
    return unpacked / DRAWINGS


def _download(work: Path) -> Path:
    download = subprocess.run(
        ["apt-get", "download", PACKAGE], cwd=work, capture_output=True, text=True
    )
    debs = sorted(work.glob(f"{PACKAGE}_*.deb"))
    if download.returncode or not debs:
        reason = (download.stderr.strip().splitlines() or ["no file was written"])[-1]
        hint = "try `apt-get update`, or download it elsewhere and give --package FILE"
        raise ImagesUnavailable(f"cannot download Debian's {PACKAGE}: {reason}; {hint}")
    return debs[-1]


def select_classes(drawings: Path, each: int) -> dict[str, list[Path]]:
    """Select the largest classes: second-level folders if large enough, otherwise first-level.

    Args:
        drawings: their root folder.
        each: number of drawings per class.

    Raises:
        ImagesUnavailable: there are too few.
    """
    paths = [path for path in sorted(drawings.rglob("*.png")) if _is_decodable(path)]
    folders = [path.relative_to(drawings).parts[:-1] for path in paths]
    counts = Counter(folder[:2] for folder in folders)
    needed = max(each, sum(PER_CLASS))
    classes: dict[str, list[Path]] = {}
    for path, folder in zip(paths, folders, strict=True):
        name = "-".join(folder[:2] if counts[folder[:2]] >= needed else folder[:1])
        classes.setdefault(name, []).append(path)
    largest = sorted(classes, key=lambda name: (-len(classes[name]), name))[:CLASSES]
    if len(largest) < CLASSES or len(classes[largest[-1]]) < each:
        raise ImagesUnavailable(f"{drawings} has fewer than {CLASSES} classes of {each} drawings")
    return {name: _sample(classes[name], each) for name in sorted(largest)}


def _is_decodable(path: Path) -> bool:
    """Return whether a drawing is valid and small; some have hundreds of millions of pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(path) as image:
                return 0 < image.width * image.height <= MAX_PIXELS
        except Exception:  # Pillow raises many types
            return False


def _sample(paths: list[Path], each: int) -> list[Path]:
    """Return the first paths in the order of the digests of their names."""
    return sorted(paths, key=lambda path: hashlib.sha256(path.name.encode()).digest())[:each]


def render(task: tuple[Path, Path, float]) -> None:
    """Write one drawing as an image, with noise of a standard deviation."""
    source, target, noise = task
    with Image.open(source) as image:
        drawing = image.convert("RGBA")
    size = SIZE if drawing.width >= drawing.height else SIZE[::-1]
    scale = min(size[0] / drawing.width, size[1] / drawing.height)
    fitted = (max(round(drawing.width * scale), 1), max(round(drawing.height * scale), 1))
    drawing = drawing.resize(fitted, Image.Resampling.BICUBIC)
    canvas = Image.new("RGB", size, "white")
    offset = ((size[0] - fitted[0]) // 2, (size[1] - fitted[1]) // 2)
    canvas.paste(drawing, offset, drawing.getchannel("A"))
    random = np.random.default_rng(zlib.crc32("/".join(target.parts[-3:]).encode()))
    pixels = np.asarray(canvas) + random.normal(0, noise, (size[1], size[0], 3))
    noisy = Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))
    noisy.save(target, "JPEG", quality=90)


def write_images(
    work: Path,
    each: tuple[int, int] = PER_CLASS,
    package: Path | None = None,
    noise: float = NOISE_STD,
) -> Path:
    """Return a folder with `train/` and `val/` of class folders, written once.

    Args:
        work: parent folder.
        each: number of training and of validation images per class.
        package: file of the Debian package; None to download it.
        noise: standard deviation of the noise, in levels of 255; drawings have none of their own.

    Raises:
        ImagesUnavailable: the drawings are not available.
    """
    target = work / (f"images-{each[0]}-{each[1]}" + ("" if noise else "-smooth"))
    if (target / SUMMARY).exists():
        return target
    classes = select_classes(fetch(work, package), sum(each))
    tasks = []
    for name, paths in classes.items():
        for number, path in enumerate(paths):
            folder = target / ("train" if number < each[0] else "val") / name
            folder.mkdir(parents=True, exist_ok=True)
            tasks.append((path, folder / f"{number:04}.jpg", noise))
    with Pool() as pool:
        for _ in pool.imap_unordered(render, tasks, chunksize=8):
            pass
    size = sum(file.stat().st_size for _, file, _ in tasks)
    summary = {"images": len(tasks), "mean_bytes": size // len(tasks), "classes": sorted(classes)}
    (target / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n")
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=WORK, help="parent folder")
    parser.add_argument("--package", type=Path, help=f"file of {PACKAGE}")
    parser.add_argument("--each", type=int, nargs=2, default=PER_CLASS, metavar=("TRAIN", "VAL"))
    options = parser.parse_args()
    folder = write_images(options.work, tuple(options.each), options.package)
    print(f"{folder}\n{(folder / SUMMARY).read_text()}", end="")


if __name__ == "__main__":
    main()
