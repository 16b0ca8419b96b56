"""Measure the peak memory of a training by the number of images, and of its parts on a million.

    uv run python benchmarks/memory.py [--work DIR] [--fresh]

`zoo finetune resnet18` trains the head on 1,000, 4,000 and 16,000 images of 64 pixels; `--dry-run`
plans on a million hard links to few files, in class folders and in a CSV. The peak is that of all
processes of the command. Last, a head is fitted on a million synthetic cached features; there the
peak is that of anonymous memory, since mapped files can be evicted. Prints a table. Each result is
written to `memory.json` when it is complete, and an interrupted benchmark resumes from there.
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

from benchmarks import images
from benchmarks.harness.bench import Bench, load_results, write_results
from benchmarks.harness.monitor import run_monitored

RESULTS = Path(__file__).with_suffix(".json")
NETWORK = "resnet18"
SIDE = 64
TRAININGS = (1_000, 4_000, 16_000)
PLANS = (1_000, 1_000_000)
SOLVES = (300_000, 1_000_000)  # both exceed the limit for loading features
LINKED = 1_000  # files behind a million hard links; a file system allows about 60,000 of each


def _crop(task: tuple[Path, Path]) -> None:
    source, target = task
    random = np.random.default_rng(zlib.crc32("/".join(target.parts[-2:]).encode()))
    with Image.open(source) as image:
        left, top = (int(random.integers(side - 2 * SIDE)) for side in image.size)
        crop = image.crop((left, top, left + 2 * SIDE, top + 2 * SIDE))
    crop.resize((SIDE, SIDE)).save(target, "JPEG", quality=90)


def write_small_images(work: Path, large: Path, count: int) -> Path:
    """Write distinct crops of larger images, and return their folder."""
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
        for _ in pool.imap_unordered(_crop, tasks, chunksize=32):
            pass
    partial.rename(target)
    return target


def write_links(work: Path, small: Path, count: int) -> tuple[Path, Path]:
    """Write many hard links to few files; return their folder, and a CSV that lists them.

    Raises:
        SystemExit: the file system does not support hard links.
    """
    target, table = work / f"links-{count}", work / f"links-{count}.csv"
    if table.exists():
        return target, table
    shutil.rmtree(target, ignore_errors=True)
    files = {folder.name: sorted(folder.iterdir()) for folder in sorted(small.iterdir())}
    lines = []
    for name, paths in files.items():
        (target / name).mkdir(parents=True)
        for number in range(count // len(files)):
            link = target / name / f"{number:06}.jpg"
            try:
                os.link(paths[number % len(paths)], link)
            except OSError as error:
                hint = "give --work on another file system"
                message = f"cannot create hard links in {work}: {error.strerror}; {hint}"
                raise SystemExit(message) from error
            lines.append(f"{target.name}/{name}/{link.name},{name}\n")
    partial = table.with_suffix(".partial")
    partial.write_text("path,label\n" + "".join(lines))
    partial.rename(table)
    return target, table


def train(work: Path, small: Path) -> dict[str, Any]:
    """Measure the training of a head."""
    bench = Bench(work, small)
    record = bench.finetune(NETWORK, f"memory {small.name}", "--input-size", str(SIDE))
    return {name: record[name] for name in ("memory_mb", "seconds", "backbone_forwards")}


def plan(work: Path, data: Path) -> dict[str, Any]:
    """Measure a dry run."""
    bench = Bench(work, data)
    command = bench.command(NETWORK, "--dry-run")
    folder = bench.folder(NETWORK, f"plan {data.name}")
    completed = run_monitored(command, folder, bench.environment)
    count = sum(json.loads(completed.output)["data"]["images"].values())
    peak = completed.memory_mb and round(completed.memory_mb)
    return {"memory_mb": peak, "seconds": round(completed.seconds, 2), "images": count}


def solve(work: Path, count: int) -> dict[str, Any]:
    """Measure the fit of a head on cached features of `count` images."""
    bench = Bench(work, work)
    folder = bench.folder(NETWORK, f"solve {count}")
    shutil.rmtree(folder, ignore_errors=True)
    environment = {**bench.environment, "XDG_CACHE_HOME": str(folder / "cache")}
    row: dict[str, Any] = {"images": count}
    for step in ("fill", "solve"):
        out = folder / f"{step}.json"
        command = [*bench.python("fit_probe"), step, "--images", str(count), "--out", str(out)]
        run_monitored(command, folder, environment)
        row |= json.loads(out.read_text())
    shutil.rmtree(folder)
    return row


def table(results: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the table, and bytes per image."""
    yield f"peak memory of `zoo finetune {NETWORK}`; {results['machine']}"
    yield "| measurement | images | peak MB | seconds |"
    yield "|---|---|---|---|"
    for name, row in results["rows"].items():
        yield f"| {name} | {row['images']:,} | {row['memory_mb']:,} | {row['seconds']:.1f} |"
    for kind in ("train", "plan folder", "plan table", "solve"):
        rows = [row for name, row in results["rows"].items() if name.startswith(kind)]
        if len(rows) > 1:
            first, last = rows[0], rows[-1]
            growth = (last["memory_mb"] - first["memory_mb"]) * 2**20
            each = growth / (last["images"] - first["images"])
            yield f"{kind}: {each:,.0f} bytes per additional image"


def measure(work: Path, results: dict[str, Any], options: argparse.Namespace) -> None:
    """Run the measurements without a result, and write each row when it is complete."""
    large = images.write_images(work, images.PER_CLASS, options.package)
    rows = results["rows"]

    def add(name: str, row: dict[str, Any]) -> None:
        rows[name] = row
        write_results(results, options.out)

    for count in options.trainings:
        if (name := f"train {count:,}") not in rows:
            add(name, {"images": count, **train(work, write_small_images(work, large, count))})
    for count in options.plans:
        sources = None
        for index, kind in enumerate(("folder", "table")):
            if (name := f"plan {kind} {count:,}") not in rows:
                small = write_small_images(work, large, LINKED)
                sources = sources or write_links(work, small, count)
                add(name, plan(work, sources[index]))
    for count in options.solves:
        if (name := f"solve {count:,}") not in rows:
            add(name, solve(work, count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=images.WORK, help="folder for generated files")
    parser.add_argument("--fresh", action="store_true", help="discard earlier results")
    parser.add_argument(
        "--trainings", type=int, nargs="*", default=TRAININGS, help="numbers of images"
    )
    parser.add_argument("--plans", type=int, nargs="*", default=PLANS, help="numbers of images")
    parser.add_argument("--solves", type=int, nargs="*", default=SOLVES, help="numbers of images")
    parser.add_argument("--package", type=Path, help=f"file of {images.PACKAGE}")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of results")
    options = parser.parse_args()
    results = load_results(options.out, options.fresh, {"rows": {}}, pixels=SIDE)
    measure(options.work.resolve(), results, options)
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
