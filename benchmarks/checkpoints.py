"""Measure what checkpoints cost: seconds, their share of an epoch's time, and bytes.

    uv run python benchmarks/checkpoints.py [--rounds 4] [--images 60] [--network resnet18]

Two trainings of all layers by AdamW, from random weights on the embedded images at 224 pixels
(`--cache-images`), are processes whose epochs alternate, so that other load of the machine affects
both: one writes a checkpoint and the best epoch's model file after each epoch, in the other the
writer does nothing. `each_epoch` is the share of an epoch's time that this takes. `automatic` is
the share without `--checkpoint-every`, computed from the seconds that one takes, for epochs of
these seconds. Bytes are those of one checkpoint; `--keep N` keeps N, and one more while it is
written. Prints a table, and writes `checkpoints.json`. On a shared machine, the seconds of single
checkpoints are more reliable than the difference of epochs.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.all_layers import PAUSE_PLUGIN, Side  # noqa: E402
from tests.docs.page_files import copy_images  # noqa: E402
from zoo.engine.training.checkpoints import SHARE, SHORTEST  # noqa: E402
from zoo.tasks.classification.data.sources import EMBEDDED  # noqa: E402

RESULTS = Path(__file__).with_suffix(".json")
SIDES = ("with", "without")
BATCH = 32
WRITER = """
import time
from zoo.engine.training.checkpoints import Checkpoints

write = Checkpoints.write

def timed(self, *arguments):
    began = time.perf_counter()
    write(self, *arguments)
    with open("seconds", "a") as seconds:
        seconds.write(f"{time.perf_counter() - began}\\n")

def nothing(self, *arguments):
    pass

Checkpoints.write = SIDE
"""


def command(options: argparse.Namespace, folder: Path, side: str) -> list[str]:
    """Return the command of a training that pauses after each epoch."""
    plugin = folder / f"{side}_checkpoints.py"
    writer = WRITER.replace("SIDE", {"with": "timed", "without": "nothing"}[side])
    plugin.write_text(PAUSE_PLUGIN + writer)
    words = [sys.executable, "-m", "zoo", "--plugin", str(plugin), "finetune", options.network]
    words += ["--out", "run"]
    words += ["--data", str(folder / "images"), "--epochs", str(options.rounds + 1)]
    words += ["--batch-size", str(BATCH), "--weights", "none", "--train", "all"]
    words += ["--input-size", "224", "--device", options.device, "--cache-images"]
    # After each epoch, and none within.
    return [*words, "--checkpoint-every", "100000"]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Alternate epochs with and without checkpoints, and return seconds, shares and bytes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        classes = sorted(path.name for path in (EMBEDDED / "train").iterdir())
        parts = {"train": ("train", 0, options.images // len(classes)), "val": ("val", 0, 2)}
        copy_images(folder / "images", classes, parts)
        sides = {
            side: Side(folder / side, command(options, folder, side), options.threads)
            for side in SIDES
        }
        epochs: dict[str, list[float]] = {side: [] for side in SIDES}
        try:
            for running in sides.values():
                running.wait()  # the first epoch decodes
            for _ in range(options.rounds):
                for side, running in sides.items():
                    began = time.perf_counter()
                    running.start()  # the checkpoint of the epoch before, then an epoch
                    running.wait()
                    epochs[side].append(round(time.perf_counter() - began, 3))
            for running in sides.values():
                running.start()
                running.process.wait()
        finally:
            for running in sides.values():
                running.process.kill()
        run = folder / "with" / "run"
        seconds = [float(line) for line in (folder / "with" / "seconds").read_text().split()]
        (checkpoint,) = run.glob("checkpoints/checkpoint-*")
        size = sum(path.stat().st_size for path in checkpoint.iterdir())
        model = (run / "model.safetensors").stat().st_size
    return summarize(epochs, seconds, size, model)


def summarize(
    epochs: dict[str, list[float]], seconds: list[float], size: int, model: int
) -> dict[str, Any]:
    """Return the cost of checkpoints.

    Args:
        epochs: seconds of each, by side.
        seconds: of each checkpoint.
        size: bytes of a checkpoint.
        model: bytes of the model file.
    """
    cost, epoch = statistics.median(seconds), statistics.median(epochs["without"])
    # Epochs from one to the next, without `--checkpoint-every`.
    interval = math.ceil(max(SHARE * cost, SHORTEST) / epoch)
    pairs = zip(epochs["with"], epochs["without"], strict=True)
    return {
        "epoch_seconds": epochs,
        "checkpoint_seconds": [round(each, 3) for each in seconds],
        "median_seconds": round(cost, 3),
        "median_ratio": round(statistics.median(a / b for a, b in pairs), 3),
        "each_epoch": round(cost / (epoch + cost), 4),
        "automatic": round(cost / (interval * epoch + cost), 4),
        "checkpoint_bytes": size,
        "model_bytes": model,
        "per_model_byte": round(size / model, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--images", type=int, default=60, help="of the training split")
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="compute threads; default of torch")
    options = parser.parse_args()
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    settings: dict[str, Any] = {"date": str(date.today()), "cores": os.cpu_count()}
    settings |= {"machine": platform.processor() or platform.machine()}
    settings |= {"images": options.images, "batch": BATCH, "threads": options.threads}
    results[f"{options.network}, {options.device}"] = {**settings, **measure(options)}
    RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print("| network, device | seconds of one | after each epoch | automatic | MB | per model |")
    print("|---|---|---|---|---|---|")
    for key, row in results.items():
        shares = f"{row['each_epoch']:.1%} | {row['automatic']:.1%}"
        size = f"{row['checkpoint_bytes'] / 1e6:.0f} | {row['per_model_byte']}"
        print(f"| {key} | {row['median_seconds']} | {shares} | {size} |")


if __name__ == "__main__":
    main()
