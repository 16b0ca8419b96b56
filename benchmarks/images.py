"""Make the images of the benchmarks: Debian's clip art as JPEG files.

    uv run python benchmarks/images.py [--work DIR] [--each 200 40]

Deterministic: 10 classes, 500 x 375, quality 90, with sensor-like noise, so that size and decoding
time of a file are those of a photo. The drawings are from the package `openclipart-png`, downloaded
by `apt-get download`, or given by `--package FILE`.
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
EACH = (200, 40)
SIZE = (500, 375)
MOST_PIXELS = 8_000_000
GRAIN = 12.0
WORK = Path(tempfile.gettempdir()) / "zoo-benchmarks"


class NoImages(SystemExit):
    """The images cannot be made; exits with a message."""


def fetch(work: Path, package: Path | None = None) -> Path:
    """Return the folder of the unpacked drawings.

    Raises:
        NoImages: the package cannot be downloaded or unpacked.
    """
    unpacked = work / "clipart"
    if (unpacked / DRAWINGS).is_dir():
        return unpacked / DRAWINGS
    for tool in ("dpkg",) if package else ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            hint = "use Debian or a derivative"
            if tool == "apt-get":
                hint = "download it elsewhere, and give --package FILE"
            raise NoImages(
                f"the images are made from Debian's {PACKAGE}, and there is no {tool}; {hint}"
            )
    work.mkdir(parents=True, exist_ok=True)
    archive = package or _download(work)
    partial = work / "clipart.partial"
    shutil.rmtree(partial, ignore_errors=True)
    done = subprocess.run(["dpkg", "-x", archive, partial], capture_output=True, text=True)
    if done.returncode or not (partial / DRAWINGS).is_dir():
        reason = done.stderr.strip() or f"no {DRAWINGS} in it"
        raise NoImages(f"{archive} cannot be unpacked: {reason}")
    partial.rename(unpacked)
    return unpacked / DRAWINGS


def _download(work: Path) -> Path:
    done = subprocess.run(
        ["apt-get", "download", PACKAGE], cwd=work, capture_output=True, text=True
    )
    archives = sorted(work.glob(f"{PACKAGE}_*.deb"))
    if done.returncode or not archives:
        reason = (done.stderr.strip().splitlines() or ["no file downloaded"])[-1]
        hint = "try `apt-get update`, or download it elsewhere, and give --package FILE"
        raise NoImages(f"Debian's package {PACKAGE} cannot be downloaded ({reason}); {hint}")
    return archives[-1]


def classes_of(drawings: Path, each: int) -> dict[str, list[Path]]:
    """Select the largest classes: folders of the second level if large enough, else of the first.

    Args:
        drawings: their folder.
        each: drawings per class.

    Raises:
        NoImages: too few drawings.
    """
    usable = [path for path in sorted(drawings.rglob("*.png")) if _usable(path)]
    folders = [path.relative_to(drawings).parts[:-1] for path in usable]
    counted = Counter(folder[:2] for folder in folders)
    classes: dict[str, list[Path]] = {}
    for path, folder in zip(usable, folders, strict=True):
        name = "-".join(folder[:2] if counted[folder[:2]] >= max(each, sum(EACH)) else folder[:1])
        classes.setdefault(name, []).append(path)
    largest = sorted(classes, key=lambda name: (-len(classes[name]), name))[:CLASSES]
    if len(largest) < CLASSES or len(classes[largest[-1]]) < each:
        raise NoImages(f"{drawings} has no {CLASSES} classes of {each} drawings")
    return {name: _sample(classes[name], each) for name in sorted(largest)}


def _usable(path: Path) -> bool:
    """Return whether a drawing is small enough: some have hundreds of millions of pixels."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(path) as image:
                return 0 < image.width * image.height <= MOST_PIXELS
        except Exception:  # Pillow raises almost any type
            return False


def _sample(paths: list[Path], each: int) -> list[Path]:
    """Sample paths in an order that depends on their names only."""
    return sorted(paths, key=lambda path: hashlib.sha256(path.name.encode()).digest())[:each]


def draw(task: tuple[Path, Path]) -> None:
    """Make an image from a drawing."""
    source, target = task
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
    pixels = np.asarray(canvas) + random.normal(0, GRAIN, (size[1], size[0], 3))
    grained = Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))
    grained.save(target, "JPEG", quality=90)


def make(work: Path, each: tuple[int, int] = EACH, package: Path | None = None) -> Path:
    """Return a folder with `train/` and `val/` of class folders, made unless it exists.

    Args:
        work: folder of all files.
        each: training and validation images per class.
        package: the Debian package, if already downloaded.

    Raises:
        NoImages: the drawings cannot be downloaded.
    """
    target = work / f"images-{each[0]}-{each[1]}"
    if (target / "made.json").exists():
        return target
    chosen = classes_of(fetch(work, package), sum(each))
    tasks = []
    for name, paths in chosen.items():
        for number, path in enumerate(paths):
            folder = target / ("train" if number < each[0] else "val") / name
            folder.mkdir(parents=True, exist_ok=True)
            tasks.append((path, folder / f"{number:04}.jpg"))
    with Pool() as pool:
        for _ in pool.imap_unordered(draw, tasks, chunksize=8):
            pass
    size = sum(file.stat().st_size for _, file in tasks)
    summary = {"images": len(tasks), "mean_bytes": size // len(tasks), "classes": sorted(chosen)}
    (target / "made.json").write_text(json.dumps(summary, indent=2) + "\n")
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=WORK, help="work folder")
    parser.add_argument("--package", type=Path, help=f"the file of {PACKAGE}, if downloaded")
    parser.add_argument("--each", type=int, nargs=2, default=EACH, metavar=("TRAIN", "VAL"))
    arguments = parser.parse_args()
    made = make(arguments.work, tuple(arguments.each), arguments.package)
    print(f"{made}\n{(made / 'made.json').read_text()}", end="")


if __name__ == "__main__":
    main()
