"""Show what memory a training takes over more and more images, and its parts over a million.

    uv run python benchmarks/memory.py [--work DIR] [--fresh]

`zoo finetune resnet18` trains the head on 1,000, 4,000 and 16,000 small pictures, seen at 64
pixels; `--dry-run` plans over a million: names for few files, as hard links, in class folders and
in a CSV. The peak is of all processes of the command. Last, the head is solved for on a million
kept features, made up; there the peak is of the process's own memory, as what is mapped can be
dropped. Prints a table, and writes `memory.json` beside this file as results come, so that a run
that was stopped goes on.
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

from benchmarks import pictures
from benchmarks.sides.bench import Bench, keep, start
from benchmarks.sides.watch import watch

RESULTS = Path(__file__).with_suffix(".json")
NETWORK = "resnet18"
SIDE = 64
TRAININGS = (1_000, 4_000, 16_000)
PLANS = (1_000, 1_000_000)
SOLVES = (300_000, 1_000_000)  # both too many to be held
LINKED = 1_000  # files that have a million names; a file system allows some 60,000 of each


def _small(task: tuple[Path, Path]) -> None:
    source, target = task
    random = np.random.default_rng(zlib.crc32("/".join(target.parts[-2:]).encode()))
    with Image.open(source) as image:
        left, top = (int(random.integers(side - 2 * SIDE)) for side in image.size)
        cut = image.crop((left, top, left + 2 * SIDE, top + 2 * SIDE))
    cut.resize((SIDE, SIDE)).save(target, "JPEG", quality=90)


def small_pictures(work: Path, large: Path, count: int) -> Path:
    """Cut small pictures out of large ones, no two of them alike; return their folder."""
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
    """Give few files many names; return the folder of them, and a CSV that lists them.

    Raises:
        SystemExit: the file system allows no hard links.
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
    """Return the peak of a head training."""
    found = Bench(work, small).finetune(NETWORK, f"memory {small.name}", "--input-size", str(SIDE))
    return {name: found[name] for name in ("memory_mb", "seconds", "backbone_forwards")}


def plan(work: Path, data: Path) -> dict[str, Any]:
    """Return the peak of planning."""
    bench = Bench(work, data)
    command = bench.command(NETWORK, "--dry-run")
    done = watch(command, bench.folder(NETWORK, f"plan {data.name}"), bench.environment)
    images = sum(json.loads(done.output)["data"]["images"].values())
    peak = done.memory_mb and round(done.memory_mb)
    return {"memory_mb": peak, "seconds": round(done.seconds, 2), "images": images}


def solve(work: Path, images: int) -> dict[str, Any]:
    """Return what the head costs on so many kept features."""
    bench = Bench(work, work)
    folder = bench.folder(NETWORK, f"solve {images}")
    shutil.rmtree(folder, ignore_errors=True)
    environment = {**bench.environment, "XDG_CACHE_HOME": str(folder / "cache")}
    found: dict[str, Any] = {"images": images}
    for what in ("fill", "solve"):
        out = folder / f"{what}.json"
        command = [*bench.python("solving"), what, "--images", str(images), "--out", str(out)]
        watch(command, folder, environment)
        found |= json.loads(out.read_text())
    shutil.rmtree(folder)
    return found


def table(results: Mapping[str, Any]) -> Iterator[str]:
    """Yield the table's lines."""
    yield f"peak memory of `zoo finetune {NETWORK}`; {results['machine']}"
    yield "| what | images | peak MB | seconds |"
    yield "|---|---|---|---|"
    for what, row in results["rows"].items():
        yield f"| {what} | {row['images']:,} | {row['memory_mb']:,} | {row['seconds']:.1f} |"
    for kind in ("train", "plan folder", "plan table", "solve"):
        mine = [row for what, row in results["rows"].items() if what.startswith(kind)]
        if len(mine) > 1:
            least, most = mine[0], mine[-1]
            more = (most["memory_mb"] - least["memory_mb"]) * 2**20
            each = more / (most["images"] - least["images"])
            yield f"{kind}: {each:,.0f} bytes more for each further image"


def measure(work: Path, results: dict[str, Any], asked: argparse.Namespace) -> None:
    """Run what is not there yet, and keep each row as it comes."""
    large = pictures.make(work, pictures.EACH, asked.package)
    rows = results["rows"]

    def add(what: str, row: dict[str, Any]) -> None:
        rows[what] = row
        keep(results, asked.out)

    for count in asked.trainings:
        if (what := f"train {count:,}") not in rows:
            add(what, {"images": count, **train(work, small_pictures(work, large, count))})
    for count in asked.plans:
        names = None
        for place, kind in enumerate(("folder", "table")):
            if (what := f"plan {kind} {count:,}") not in rows:
                names = names or many_names(work, small_pictures(work, large, LINKED), count)
                add(what, plan(work, names[place]))
    for count in asked.solves:
        if (what := f"solve {count:,}") not in rows:
            add(what, solve(work, count))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=pictures.WORK, help="for all that is made")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    parser.add_argument("--trainings", type=int, nargs="*", default=TRAININGS, help="of images")
    parser.add_argument("--plans", type=int, nargs="*", default=PLANS, help="over images")
    parser.add_argument("--solves", type=int, nargs="*", default=SOLVES, help="on images")
    parser.add_argument("--package", type=Path, help=f"the file of {pictures.PACKAGE}")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the results")
    asked = parser.parse_args()
    results = start(asked.out, asked.fresh, {"rows": {}}, pixels=SIDE)
    measure(asked.work.resolve(), results, asked)
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
