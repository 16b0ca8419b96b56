"""Make the pictures that the benchmarks train on: Debian's clip art as JPEG files.

    uv run python benchmarks/pictures.py [--work DIR] [--each 200 40]

The same files each time: 10 classes, 500 x 375, quality 90, with a grain as a sensor leaves it, so
that a file is as large, and takes as long to decode, as a photo of that size. The drawings come
from the package `openclipart-png`, which `apt-get download` fetches, or from `--package FILE`.
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


class NoPictures(SystemExit):
    """Says in a sentence why there are none, and ends the program."""


def fetch(work: Path, package: Path | None = None) -> Path:
    """Return the folder of the unpacked drawings.

    Raises:
        NoPictures: the package cannot be had or unpacked.
    """
    unpacked = work / "clipart"
    if (unpacked / DRAWINGS).is_dir():
        return unpacked / DRAWINGS
    for tool in ("dpkg",) if package else ("apt-get", "dpkg"):
        if shutil.which(tool) is None:
            hint = "use Debian or one of its kin"
            if tool == "apt-get":
                hint = "fetch it elsewhere and give it with --package FILE"
            raise NoPictures(
                f"the pictures are made of Debian's {PACKAGE}, and there is no {tool}; {hint}"
            )
    work.mkdir(parents=True, exist_ok=True)
    found = package or _download(work)
    partial = work / "clipart.partial"
    shutil.rmtree(partial, ignore_errors=True)
    done = subprocess.run(["dpkg", "-x", found, partial], capture_output=True, text=True)
    if done.returncode or not (partial / DRAWINGS).is_dir():
        said = done.stderr.strip() or f"no {DRAWINGS} in it"
        raise NoPictures(f"{found} cannot be unpacked: {said}")
    partial.rename(unpacked)
    return unpacked / DRAWINGS


def _download(work: Path) -> Path:
    done = subprocess.run(
        ["apt-get", "download", PACKAGE], cwd=work, capture_output=True, text=True
    )
    found = sorted(work.glob(f"{PACKAGE}_*.deb"))
    if done.returncode or not found:
        said = (done.stderr.strip().splitlines() or ["no file came"])[-1]
        hint = "try `apt-get update`, or fetch it elsewhere and give it with --package FILE"
        raise NoPictures(f"Debian's package {PACKAGE} cannot be had ({said}); {hint}")
    return found[-1]


def classes_of(drawings: Path, each: int) -> dict[str, list[Path]]:
    """Choose the largest classes: folders of the second level that suffice, else of the first.

    Args:
        drawings: where they are.
        each: how many a class needs.

    Raises:
        NoPictures: there are too few.
    """
    usable = [path for path in sorted(drawings.rglob("*.png")) if _usable(path)]
    places = [path.relative_to(drawings).parts[:-1] for path in usable]
    counted = Counter(place[:2] for place in places)
    found: dict[str, list[Path]] = {}
    for path, place in zip(usable, places, strict=True):
        name = "-".join(place[:2] if counted[place[:2]] >= max(each, sum(EACH)) else place[:1])
        found.setdefault(name, []).append(path)
    largest = sorted(found, key=lambda name: (-len(found[name]), name))[:CLASSES]
    if len(largest) < CLASSES or len(found[largest[-1]]) < each:
        raise NoPictures(f"{drawings} has no {CLASSES} classes of {each} drawings")
    return {name: _chosen(found[name], each) for name in sorted(largest)}


def _usable(path: Path) -> bool:
    """Whether a drawing may be decoded: some of them are hundreds of millions of pixels large."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            with Image.open(path) as image:
                return 0 < image.width * image.height <= MOST_PIXELS
        except Exception:  # Pillow raises nearly any kind
            return False


def _chosen(paths: list[Path], each: int) -> list[Path]:
    """Take some that are spread over all, in an order that follows from their names alone."""
    return sorted(paths, key=lambda path: hashlib.sha256(path.name.encode()).digest())[:each]


def draw(task: tuple[Path, Path]) -> None:
    """Make one picture of one drawing."""
    source, target = task
    with Image.open(source) as image:
        drawing = image.convert("RGBA")
    size = SIZE if drawing.width >= drawing.height else SIZE[::-1]
    scale = min(size[0] / drawing.width, size[1] / drawing.height)
    fitted = (max(round(drawing.width * scale), 1), max(round(drawing.height * scale), 1))
    drawing = drawing.resize(fitted, Image.Resampling.BICUBIC)
    canvas = Image.new("RGB", size, "white")
    place = ((size[0] - fitted[0]) // 2, (size[1] - fitted[1]) // 2)
    canvas.paste(drawing, place, drawing.getchannel("A"))
    random = np.random.default_rng(zlib.crc32("/".join(target.parts[-3:]).encode()))
    pixels = np.asarray(canvas) + random.normal(0, GRAIN, (size[1], size[0], 3))
    grained = Image.fromarray(pixels.clip(0, 255).round().astype(np.uint8))
    grained.save(target, "JPEG", quality=90)


def make(work: Path, each: tuple[int, int] = EACH, package: Path | None = None) -> Path:
    """Return a folder with `train/` and `val/` of class folders, made now or earlier.

    Args:
        work: where everything is kept.
        each: pictures of a class to train on, and to validate on.
        package: the Debian package, if it is there already.

    Raises:
        NoPictures: the drawings cannot be had.
    """
    target = work / f"pictures-{each[0]}-{each[1]}"
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
    said = {"images": len(tasks), "mean_bytes": size // len(tasks), "classes": sorted(chosen)}
    (target / "made.json").write_text(json.dumps(said, indent=2) + "\n")
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=WORK, help="where to keep them")
    parser.add_argument("--package", type=Path, help=f"the file of {PACKAGE}, if it is there")
    parser.add_argument("--each", type=int, nargs=2, default=EACH, metavar=("TRAIN", "VAL"))
    arguments = parser.parse_args()
    made = make(arguments.work, tuple(arguments.each), arguments.package)
    print(f"{made}\n{(made / 'made.json').read_text()}", end="")


if __name__ == "__main__":
    main()
