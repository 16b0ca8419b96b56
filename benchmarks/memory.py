"""Measure peak memory of a training by number of images, and of its parts on a million.

    uv run python benchmarks/memory.py [--work DIR] [--fresh]

`zoo finetune resnet18` trains the head on 1,000, 4,000 and 16,000 images of 64 pixels; `--dry-run`
plans over a million names, hard links to few files, in class folders and in a CSV. The peak is that
of all processes of the command. Finally, the head is solved for on a million synthetic cached
features; that peak is of anonymous memory, as mapped files can be evicted. Prints a table, and
writes `memory.json` as results are measured, so that an interrupted run resumes.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import zlib
from collections.abc import Iterator, Mapping
from multiprocessing import Pool
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import images as image_data
from benchmarks.sides.bench import Bench, start, write
from benchmarks.sides.watch import watch

RESULTS = Path(__file__).with_suffix(".json")
NETWORK = "resnet18"
SIDE = 64
TRAININGS = (1_000, 4_000, 16_000)
PLANS = (1_000, 1_000_000)
SOLVES = (300_000, 1_000_000)  # neither fits into the in-memory limit
LINKED = 1_000  # files with a million hard links; a file system allows some 60,000 per file


def _small(task: tuple[Path, Path]) -> None:
    source, target = task
    random = np.random.default_rng(zlib.crc32("/".join(target.parts[-2:]).encode()))
    with Image.open(source) as image:
        left, top = (int(random.integers(side - 2 * SIDE)) for side in image.size)
        cut = image.crop((left, top, left + 2 * SIDE, top + 2 * SIDE))
    cut.resize((SIDE, SIDE)).save(target, "JPEG", quality=90)


def small_images(work: Path, large: Path, count: int) -> Path:
    """Crop distinct small images from large ones; return their folder."""
    target = work / f"small-{count}"
    if target.exists():
        return target
    sources = {folder.name: sorted(folder.iterdir()) for folder in (large / "train").iterdir()}
    partial = work / f"small-{count}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    tasks = []
    for name, paths in sorted(sources.items()):
        (partial / name).mkdir(parents=True)
        for number in range(count // len(sources)):
            tasks.append((paths[number % len(paths)], partial / name / f"{number:05}.jpg"))
    with Pool() as pool:
        for _ in pool.imap_unordered(_small, tasks, chunksize=32):
            pass
    partial.rename(target)
    return target


def many_names(work: Path, small: Path, count: int) -> tuple[Path, Path]:
    """Create many hard links to few files; return their folder, and a CSV that lists them.

    Raises:
        SystemExit: the file system does not support hard links.
    """
    target, listed = work / f"names-{count}", work / f"names-{count}.csv"
    if listed.exists():
        return target, listed
    shutil.rmtree(target, ignore_errors=True)
    files = {folder.name: sorted(folder.iterdir()) for folder in sorted(small.iterdir())}
    lines = []
    for name, paths in files.items():
        (target / name).mkdir(parents=True)
        for number in range(count // len(files)):
            new = target / name / f"{number:06}.jpg"
            try:
                os.link(paths[number % len(paths)], new)
            except OSError as error:
                hint = "give a --work on another file system"
                raise SystemExit(f"no hard links in {work}: {error.strerror}; {hint}") from error
            lines.append(f"{target.name}/{name}/{new.name},{name}\n")
    partial = listed.with_suffix(".partial")
    partial.write_text("path,label\n" + "".join(lines))
    partial.rename(listed)
    return target, listed


def train(work: Path, small: Path) -> dict[str, Any]:
    """Return the peak memory of training a head."""
    record = Bench(work, small).finetune(NETWORK, f"memory {small.name}", "--input-size", str(SIDE))
    return {name: record[name] for name in ("memory_mb", "seconds", "backbone_forwards")}


def plan(work: Path, data: Path) -> dict[str, Any]:
    """Return the peak memory of planning."""
    bench = Bench(work, data)
    command = bench.command(NETWORK, "--dry-run")
    done = watch(command, bench.folder(NETWORK, f"plan {data.name}"), bench.environment)
    images = sum(json.loads(done.output)["data"]["images"].values())
    peak = done.memory_mb and round(done.memory_mb)
    return {"memory_mb": peak, "seconds": round(done.seconds, 2), "images": images}


def solve(work: Path, images: int) -> dict[str, Any]:
    """Return the cost of solving for the head on so many cached features."""
    bench = Bench(work, work)
    folder = bench.folder(NETWORK, f"solve {images}")
    shutil.rmtree(folder, ignore_errors=True)
    environment = {**bench.environment, "XDG_CACHE_HOME": str(folder / "cache")}
    record: dict[str, Any] = {"images": images}
    for what in ("fill", "solve"):
        out = folder / f"{what}.json"
        command = [*bench.python("solving"), what, "--images", str(images), "--out", str(out)]
        watch(command, folder, environment)
        record |= json.loads(out.read_text())
    shutil.rmtree(folder)
    return record


def table(results: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the table."""
    yield f"peak memory of `zoo finetune {NETWORK}`; {results['machine']}"
    yield "| step | images | peak MB | seconds |"
    yield "|---|---|---|---|"
    for what, row in results["rows"].items():
        yield f"| {what} | {row['images']:,} | {row['memory_mb']:,} | {row['seconds']:.1f} |"
    for kind in ("train", "plan folder", "plan table", "solve"):
        mine = [row for what, row in results["rows"].items() if what.startswith(kind)]
        if len(mine) > 1:
            least, most = mine[0], mine[-1]
            more = (most["memory_mb"] - least["memory_mb"]) * 2**20
            each = more / (most["images"] - least["images"])
            yield f"{kind}: {each:,.0f} bytes per additional image"


def measure(work: Path, results: dict[str, Any], options: argparse.Namespace) -> None:
    """Measure the missing rows, and write each at once."""
    large = image_data.make(work, image_data.EACH, options.package)
    rows = results["rows"]

    def add(what: str, row: dict[str, Any]) -> None:
        rows[what] = row
        write(results, options.out)

    for count in options.trainings:
        if (what := f"train {count:,}") not in rows:
            add(what, {"images": count, **train(work, small_images(work, large, count))})
    for count in options.plans:
        names = None
        for index, kind in enumerate(("folder", "table")):
            if (what := f"plan {kind} {count:,}") not in rows:
                names = names or many_names(work, small_images(work, large, LINKED), count)
                add(what, plan(work, names[index]))
    for count in options.solves:
        if (what := f"solve {count:,}") not in rows:
            add(what, solve(work, count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=image_data.WORK, help="work folder")
    parser.add_argument("--fresh", action="store_true", help="discard earlier results")
    parser.add_argument("--trainings", type=int, nargs="*", default=TRAININGS, help="of images")
    parser.add_argument("--plans", type=int, nargs="*", default=PLANS, help="over images")
    parser.add_argument("--solves", type=int, nargs="*", default=SOLVES, help="on images")
    parser.add_argument("--package", type=Path, help=f"the file of {image_data.PACKAGE}")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the results")
    options = parser.parse_args()
    results = start(options.out, options.fresh, {"rows": {}}, pixels=SIDE)
    measure(options.work.resolve(), results, options)
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
