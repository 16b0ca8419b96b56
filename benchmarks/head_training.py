"""Compare the training of a head: zoo, the textbook's loop, fastai and transformers.

    uv run --group bench python benchmarks/head_training.py [--work DIR] [--fresh]

On three frozen networks and 2,400 images of `images.py`. Each side is a process, from command to
model file; all start from the same weights, and one program evaluates their model files. 20 epochs
of the others are extrapolated, and labelled so; `--long` runs the textbook's, for their accuracy.
Each result is written to `head_training.json` when it is complete, and an interrupted benchmark
resumes from there. The tables, which are printed and written to `head_training.md`, have medians of
`--runs`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import images
from benchmarks.harness.bench import (
    Bench,
    installed_versions,
    load_results,
    to_record,
    write_results,
)
from benchmarks.harness.monitor import run_monitored
from benchmarks.harness.networks import NETWORKS
from benchmarks.harness.report import LONG, LOWER_BOUNDS, page, table

RESULTS = Path(__file__).with_suffix(".json")
MODULES = {
    "textbook": "train_textbook",
    "fastai": "train_fastai",
    "transformers": "train_transformers",
}
EPOCHS = {"zoo 1 epoch": 1, "zoo 5 epochs": 5, f"zoo {LONG} epochs": LONG}

# Order within each run.
ORDER = (
    *("decode", "zoo", "zoo again", "textbook", "zoo 1 epoch", "fastai", "zoo 5 epochs"),
    *("transformers", f"zoo {LONG} epochs", "forward", "decode and forward"),
)
LONG_TEXTBOOK = f"textbook {LONG} epochs"


def run_zoo(bench: Bench, network: str, side: str) -> dict[str, Any]:
    """Run `zoo finetune` with an empty cache; `zoo again` reuses that of `zoo`."""
    options = ["--epochs", str(EPOCHS[side])] if side in EPOCHS else []
    cache = None
    if side == "zoo again":
        cache = bench.folder(network, "zoo") / "cache"
        if not any(cache.glob("zoo/*")):
            bench.finetune(network, "zoo")
    return bench.finetune(network, side, *options, cache=cache)


def run_other(bench: Bench, network: str, side: str, epochs: int) -> dict[str, Any]:
    """Run the program of the textbook or of another library."""
    folder = bench.folder(network, side)
    target = folder / "model.safetensors"
    command = [*bench.python(MODULES[side.partition(" ")[0]]), *bench.options(network, target)]
    command += ["--epochs", str(epochs)]
    return to_record(run_monitored(command, folder, bench.environment), target)


def run_lower_bound(bench: Bench, network: str, side: str) -> dict[str, Any]:
    """Measure a lower bound of the time."""
    folder = bench.folder(network, side)
    bound = "both" if side == "decode and forward" else side
    target = folder / "result.json"
    command = [*bench.python("lower_bounds"), bound, *bench.options(network, target)]
    run_monitored(command, folder, bench.environment)
    result: dict[str, Any] = json.loads(target.read_text())
    return {**result, "seconds": round(result["seconds"], 3)}


def run(bench: Bench, network: str, side: str, epochs: int) -> dict[str, Any]:
    """Run one side once, and return its record."""
    if side in LOWER_BOUNDS:
        return run_lower_bound(bench, network, side)
    if side.startswith("zoo"):
        return run_zoo(bench, network, side)
    return run_other(bench, network, side, LONG if side == LONG_TEXTBOOK else epochs)


def evaluate(bench: Bench, network: str, sides: dict[str, list[dict[str, Any]]]) -> None:
    """Add the accuracy to each record whose model file is not evaluated yet."""
    records = [record for records in sides.values() for record in records if "model" in record]
    # An interrupted benchmark may resume in another work folder.
    files = [record["model"] for record in records if Path(record["model"]).exists()]
    if files:
        command = [*bench.python("evaluate"), "--network", network, "--data", str(bench.data)]
        folder = bench.folder(network, "evaluate")
        completed = run_monitored([*command, *files], folder, bench.environment)
        accuracies = json.loads(completed.output)
        for record in records:
            record["top1"] = accuracies.get(record.pop("model"))


def available_sides(sides: list[str]) -> Iterator[str]:
    """Yield the sides whose library is installed, and warn of the others."""
    installed = installed_versions()
    for side in sides:
        if side in ("fastai", "transformers") and side not in installed:
            message = f"skipping {side}: it is not installed; use `uv run --group bench`"
            print(message, file=sys.stderr)
        else:
            yield side


def measure(bench: Bench, results: dict[str, Any], options: argparse.Namespace) -> None:
    """Run the sides without a result, and write each record when it is complete."""
    for number in range(1, options.runs + 1):
        for network in options.networks:
            sides = results["networks"].setdefault(network, {})
            for side in options.sides:
                if len(sides.setdefault(side, [])) < number:
                    print(f"{network}: {side}, run {number}", file=sys.stderr, flush=True)
                    sides[side].append(run(bench, network, side, options.epochs))
                    write_results(results, options.out)
            # Before a later run overwrites the model files.
            evaluate(bench, network, sides)
            write_results(results, options.out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=images.WORK, help="folder for generated files")
    parser.add_argument("--fresh", action="store_true", help="discard earlier results")
    parser.add_argument("--runs", type=int, default=1, help="of each side")
    parser.add_argument("--long", action="store_true", help=f"run {LONG_TEXTBOOK} too")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--sides", nargs="+", choices=ORDER, default=list(ORDER))
    parser.add_argument("--epochs", type=int, default=1, help="of the other programs")
    parser.add_argument("--workers", type=int, help="of the other programs; number of cores")
    parser.add_argument(
        "--each", type=int, nargs=2, default=images.PER_CLASS, help="images per class"
    )
    parser.add_argument("--package", type=Path, help=f"file of {images.PACKAGE}")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of results")
    options = parser.parse_args()
    work = options.work.resolve()
    data = images.write_images(work, tuple(options.each), options.package)
    summary = json.loads((data / images.SUMMARY).read_text())
    settings = {"data": summary, "epochs_of_others": options.epochs}
    results = load_results(options.out, options.fresh, {"networks": {}}, **settings)
    options.sides = list(
        available_sides([*options.sides, *([LONG_TEXTBOOK] if options.long else [])])
    )
    measure(Bench(work, data, options.workers), results, options)
    print("\n".join(table(results)))
    options.out.with_suffix(".md").write_text(page(results) + "\n")


if __name__ == "__main__":
    main()
