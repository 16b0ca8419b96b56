"""Train all layers: `zoo finetune --train all` beside a bare loop on tensors in memory.

    uv run python benchmarks/all_layers.py [--work DIR] [--networks resnet18] [--fresh]

Both go through the training and the validation pictures in each epoch, with the same optimizer,
batch and precision; what counts is each epoch but the first, in which zoo decodes. Results are kept
in `all_layers.json` beside this file as they come, so that a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import pictures
from benchmarks.sides.bench import Bench, keep, start
from benchmarks.sides.networks import NETWORKS
from benchmarks.sides.watch import watch

RESULTS = Path(__file__).with_suffix(".json")
BAR = 0.95


def run_both(bench: Bench, network: str, epochs: int) -> dict[str, Any]:
    """Run zoo, then the bare loop as zoo's plan has it; return both records."""
    ours = bench.finetune(network, "zoo all", "--train", "all", "--epochs", str(epochs))
    plan = ours["plan"]
    folder = bench.folder(network, "bare")
    command = [*bench.python("bare_step"), *bench.shared(network, folder / "model.safetensors")]
    for name in ("optimizer", "precision", "batch_size"):
        command += [f"--{name.replace('_', '-')}", str(plan[name])]
    done = watch([*command, "--epochs", str(epochs)], folder, bench.environment)
    bare = {"epochs": [round(seconds, 3) for seconds in done.epochs]}
    return {"zoo": ours, "bare": {**bare, "format": done.output.strip()}}


def speed(records: list[Mapping[str, Any]], side: str, images: int) -> float:
    """Return the images per second of all epochs but the first of each run."""
    return images / median(s for record in records for s in record[side]["epochs"][1:])


def table(results: Mapping[str, Any]) -> Iterator[str]:
    """Yield the table's lines."""
    images = results["pictures"]["images"]
    yield f"{images:,} images in an epoch, from the second on; {results['machine']}"
    yield f"| network | zoo, images/s | bare, images/s | ratio (bar {BAR}) | zoo's first epoch |"
    yield "|---|---|---|---|---|"
    for network, records in results["networks"].items():
        ours, bare = (speed(records, side, images) for side in ("zoo", "bare"))
        first = images / median(record["zoo"]["epochs"][0] for record in records)
        yield f"| {network} | {ours:.1f} | {bare:.1f} | {ours / bare:.2f} | {first:.1f} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, default=pictures.WORK, help="for all that is made")
    parser.add_argument("--fresh", action="store_true", help="forget earlier results")
    parser.add_argument("--runs", type=int, default=1, help="of each side")
    parser.add_argument("--epochs", type=int, default=3, help="at least 2")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS))
    parser.add_argument("--each", type=int, nargs=2, default=pictures.EACH, help="of a class")
    parser.add_argument("--package", type=Path, help=f"the file of {pictures.PACKAGE}")
    parser.add_argument("--out", type=Path, default=RESULTS, help="the results")
    asked = parser.parse_args()
    data = pictures.make(asked.work.resolve(), tuple(asked.each), asked.package)
    made = json.loads((data / "made.json").read_text())
    fixed = {"pictures": made, "epochs": asked.epochs}
    results = start(asked.out, asked.fresh, {"networks": {}}, **fixed)
    bench = Bench(asked.work.resolve(), data)
    for number in range(1, asked.runs + 1):
        for network in asked.networks:
            records = results["networks"].setdefault(network, [])
            if len(records) < number:
                records.append(run_both(bench, network, asked.epochs))
                keep(results, asked.out)
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
