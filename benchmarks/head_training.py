"""Train the heads of three frozen networks with zoo, the textbook's loop and two libraries.

    uv run --group bench python benchmarks/head_training.py [--work DIR] [--fresh]

Each side is a separate process, from command to model file, on 2,400 images made by `images.py`,
from the same weights; the sides alternate, and all model files are evaluated in the same way. Runs
that would take too long are extrapolated, and labelled so. Results are written to
`head_training.json` as they are measured, so that an interrupted run resumes; the tables are
printed at the end, and written to `head_training.md`. `--long` also runs the textbook's 20 epochs,
for their accuracy; `--runs 3` runs every side three times, and the tables show medians.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import images as image_data
from benchmarks.sides.bench import Bench, record, start, versions, write
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

# Order of the sides in each round.
ORDER = (
    *("decode", "zoo", "zoo again", "textbook", "zoo 1 epoch", "fastai", "zoo 5 epochs"),
    *("transformers", f"zoo {LONG} epochs", "forward", "decode and forward"),
)
LONG_TEXTBOOK = f"textbook {LONG} epochs"


def run_zoo(bench: Bench, network: str, side: str) -> dict[str, Any]:
    """Run `zoo finetune` with an empty cache; `zoo again` uses that of `zoo`."""
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
    """Run a lower bound."""
    folder = bench.folder(network, side)
    what = "both" if side == "decode and forward" else side
    target = folder / "result.json"
    watch(
        [*bench.python("floors"), what, *bench.shared(network, target)], folder, bench.environment
    )
    result: dict[str, Any] = json.loads(target.read_text())
    return {**result, "seconds": round(result["seconds"], 3)}


def run(bench: Bench, network: str, side: str, epochs: int) -> dict[str, Any]:
    """Run one side once, and return its record."""
    if side in FLOORS:
        return run_floor(bench, network, side)
    if side.startswith("zoo"):
        return run_zoo(bench, network, side)
    return run_other(bench, network, side, LONG if side == LONG_TEXTBOOK else epochs)


def judge(bench: Bench, network: str, sides: dict[str, list[dict[str, Any]]]) -> None:
    """Add the accuracy to each record whose model file is not evaluated yet."""
    records = [record for records in sides.values() for record in records if "model" in record]
    # A resumed run may have another work folder.
    files = [record["model"] for record in records if Path(record["model"]).exists()]
    if files:
        command = [*bench.python("judge"), "--network", network, "--data", str(bench.data), *files]
        done = watch(command, bench.folder(network, "judge"), bench.environment)
        accuracies = json.loads(done.output)
        for each in records:
            each["top1"] = accuracies.get(each.pop("model"))


def available(sides: list[str]) -> Iterator[str]:
    """Yield the sides whose library is installed; report the others."""
    installed = versions()
    for side in sides:
        if side in ("fastai", "transformers") and side not in installed:
            print(f"{side} skipped: not installed; use `uv run --group bench`", file=sys.stderr)
        else:
            yield side


def measure(bench: Bench, results: dict[str, Any], options: argparse.Namespace) -> None:
    """Run the missing sides, and write each record at once."""
    for number in range(1, options.runs + 1):
        for network in options.networks:
            sides = results["networks"].setdefault(network, {})
            for side in options.sides:
                if len(sides.setdefault(side, [])) < number:
                    print(f"{network}: {side}, run {number}", file=sys.stderr, flush=True)
                    sides[side].append(run(bench, network, side, options.epochs))
                    write(results, options.out)
            # Before a later run overwrites the model files.
            judge(bench, network, sides)
            write(results, options.out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=image_data.WORK, help="work folder")
    parser.add_argument("--fresh", action="store_true", help="discard earlier results")
    parser.add_argument("--runs", type=int, default=1, help="of each side")
    parser.add_argument("--long", action="store_true", help=f"run {LONG_TEXTBOOK} too")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--sides", nargs="+", choices=ORDER, default=list(ORDER))
    parser.add_argument("--epochs", type=int, default=1, help="of the other sides")
    parser.add_argument("--workers", type=int, help="of the other sides; by default the cores")
    parser.add_argument("--each", type=int, nargs=2, default=image_data.EACH, help="of a class")
    parser.add_argument("--package", type=Path, help=f"the file of {image_data.PACKAGE}")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the results")
    options = parser.parse_args()
    work = options.work.resolve()
    data = image_data.make(work, tuple(options.each), options.package)
    made = json.loads((data / "made.json").read_text())
    fixed = {"data": made, "epochs_of_others": options.epochs}
    results = start(options.out, options.fresh, {"networks": {}}, **fixed)
    options.sides = list(available([*options.sides, *([LONG_TEXTBOOK] if options.long else [])]))
    measure(Bench(work, data, options.workers), results, options)
    print("\n".join(table(results)))
    options.out.with_suffix(".md").write_text(page(results) + "\n")


if __name__ == "__main__":
    main()
