"""Train the heads of three frozen networks: zoo beside the textbook's loop and two libraries.

    uv run --group bench python benchmarks/head_training.py [--work DIR] [--fresh]

Each side is a process of its own, from command to model file, on 2,400 pictures that
`pictures.py` makes; they run in turn, on the same weights, and their model files are all measured
in the same way. What is too long to run is reckoned, and labelled so. Results are kept in
`head_training.json` beside this file as they come, so that a run that was stopped goes on; the
tables are printed at the end, and written into `head_training.md`. `--long` runs the textbook's
20 epochs too, for their accuracy; `--runs 3` takes every side three times, and the tables then
show medians.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import pictures
from benchmarks.sides.bench import Bench, keep, record, start, versions
from benchmarks.sides.networks import NETWORKS
from benchmarks.sides.report import FLOORS, LONG, page, table
from benchmarks.sides.watch import watch

RESULTS = Path(__file__).with_suffix(".json")
MODULES = {
    "textbook": "textbook_loop",
    "fastai": "with_fastai",
    "transformers": "with_transformers",
}
EPOCHS = {"zoo 1 epoch": 1, "zoo 5 epochs": 5, f"zoo {LONG} epochs": LONG}

# In which they run in each round.
ORDER = (
    *("decode", "zoo", "zoo again", "textbook", "zoo 1 epoch", "fastai", "zoo 5 epochs"),
    *("transformers", f"zoo {LONG} epochs", "forward", "decode and forward"),
)
LONG_TEXTBOOK = f"textbook {LONG} epochs"


def run_zoo(bench: Bench, network: str, side: str) -> dict[str, Any]:
    """Run `zoo finetune` with a fresh cache; `zoo again` goes on with that of `zoo`."""
    options = ["--epochs", str(EPOCHS[side])] if side in EPOCHS else []
    cache = None
    if side == "zoo again":
        cache = bench.folder(network, "zoo") / "cache"
        if not any(cache.glob("zoo/*")):
            bench.finetune(network, "zoo")
    return bench.finetune(network, side, *options, cache=cache)


def run_other(bench: Bench, network: str, side: str, epochs: int) -> dict[str, Any]:
    """Run the textbook's loop or a library's."""
    folder = bench.folder(network, side)
    target = folder / "model.safetensors"
    command = [*bench.python(MODULES[side.partition(" ")[0]]), *bench.shared(network, target)]
    return record(watch([*command, "--epochs", str(epochs)], folder, bench.environment), target)


def run_floor(bench: Bench, network: str, side: str) -> dict[str, Any]:
    """Run what nothing can be quicker than."""
    folder = bench.folder(network, side)
    what = "both" if side == "decode and forward" else side
    target = folder / "found.json"
    watch(
        [*bench.python("floors"), what, *bench.shared(network, target)], folder, bench.environment
    )
    found: dict[str, Any] = json.loads(target.read_text())
    return {**found, "seconds": round(found["seconds"], 3)}


def run(bench: Bench, network: str, side: str, epochs: int) -> dict[str, Any]:
    """Run one side once, and return its record."""
    if side in FLOORS:
        return run_floor(bench, network, side)
    if side.startswith("zoo"):
        return run_zoo(bench, network, side)
    return run_other(bench, network, side, LONG if side == LONG_TEXTBOOK else epochs)


def judge(bench: Bench, network: str, sides: dict[str, list[dict[str, Any]]]) -> None:
    """Add the accuracy to each record whose model file was not measured yet."""
    records = [record for records in sides.values() for record in records if "model" in record]
    # A stopped run may go on without its work folder.
    files = [record["model"] for record in records if Path(record["model"]).exists()]
    if files:
        command = [*bench.python("judge"), "--network", network, "--data", str(bench.data), *files]
        done = watch(command, bench.folder(network, "judge"), bench.environment)
        found = json.loads(done.output)
        for one in records:
            one["top1"] = found.get(one.pop("model"))


def present(sides: list[str]) -> Iterator[str]:
    """Yield those sides whose library is installed, and say which is not."""
    there = versions()
    for side in sides:
        if side in ("fastai", "transformers") and side not in there:
            print(f"{side} is left out: not installed; use `uv run --group bench`", file=sys.stderr)
        else:
            yield side


def measure(bench: Bench, results: dict[str, Any], asked: argparse.Namespace) -> None:
    """Run what is not there yet, and keep each record as it comes."""
    for number in range(1, asked.runs + 1):
        for network in asked.networks:
            sides = results["networks"].setdefault(network, {})
            for side in asked.sides:
                if len(sides.setdefault(side, [])) < number:
                    print(f"{network}: {side}, run {number}", file=sys.stderr, flush=True)
                    sides[side].append(run(bench, network, side, asked.epochs))
                    keep(results, asked.out)
            # Before a later run overwrites the model files.
            judge(bench, network, sides)
            keep(results, asked.out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=pictures.WORK, help="for all that is made")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    parser.add_argument("--runs", type=int, default=1, help="of each side")
    parser.add_argument("--long", action="store_true", help=f"run {LONG_TEXTBOOK} too")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--sides", nargs="+", choices=ORDER, default=list(ORDER))
    parser.add_argument("--epochs", type=int, default=1, help="of the other sides")
    parser.add_argument("--workers", type=int, help="of the other sides; by default the cores")
    parser.add_argument("--each", type=int, nargs=2, default=pictures.EACH, help="of a class")
    parser.add_argument("--package", type=Path, help=f"the file of {pictures.PACKAGE}")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the results")
    asked = parser.parse_args()
    work = asked.work.resolve()
    data = pictures.make(work, tuple(asked.each), asked.package)
    made = json.loads((data / "made.json").read_text())
    fixed = {"pictures": made, "epochs_of_others": asked.epochs}
    results = start(asked.out, asked.fresh, {"networks": {}}, **fixed)
    asked.sides = list(present([*asked.sides, *([LONG_TEXTBOOK] if asked.long else [])]))
    measure(Bench(work, data, asked.workers), results, asked)
    print("\n".join(table(results)))
    asked.out.with_suffix(".md").write_text(page(results) + "\n")


if __name__ == "__main__":
    main()
