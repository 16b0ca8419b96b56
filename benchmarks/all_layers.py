"""Compare the training of all layers: zoo, and a bare loop on tensors in memory.

    uv run python benchmarks/all_layers.py [--fresh] [--rounds 5] [--images 160] [--threads 1]

Both train resnet18 from random weights on the embedded images at 224 pixels, with batches of 32,
the same precision and memory format, and fused AdamW. zoo caches decoded images (`--cache-images`);
the bare loop has its batches as normalized floats on the device, and runs forward, loss, backward
and step only. Each is a process; from the second epoch on their epochs alternate, so that other
load of the machine affects both. An epoch validates on two images per class. Prints a table. Each
result is written to `all_layers.json` when it is complete, and an interrupted benchmark resumes
from there. On a shared machine, CPU seconds are more reliable than wall time.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.docs.page_files import copy_images  # noqa: E402
from zoo.tasks.classification.data.sources import EMBEDDED  # noqa: E402

RESULTS = Path(__file__).with_suffix(".json")
SIDES = ("zoo", "bare")
PRECISIONS = ("fp32", "bf16")
BATCH = 32
MIN_RATIO = 0.95
CLOCKS = ("clock", "cpu")
PAUSE_PLUGIN = """
import os, time
import zoo

began = time.process_time()

@zoo.hookimpl
def zoo_after_epoch(event):
    global began
    with open(os.environ["DONE"], "w") as done:
        done.write(f"{event.seconds} {time.process_time() - began}")
    with open(os.environ["GO"]) as go:
        go.read()
    began = time.process_time()
"""


class Side:
    """A training process that pauses after each epoch.

    Args:
        folder: working directory, created.
        command: program and arguments.
        threads: number of compute threads; None for torch's default.
    """

    def __init__(self, folder: Path, command: list[str], threads: int | None) -> None:
        folder.mkdir()
        self.go, self.done = folder / "go", folder / "done"
        os.mkfifo(self.go)
        os.mkfifo(self.done)
        variables = {"GO": str(self.go), "DONE": str(self.done), "PYTHONPATH": str(ROOT)}
        if threads:
            variables["OMP_NUM_THREADS"] = str(threads)
        environment = {**os.environ, **variables}
        self.process = subprocess.Popen(command, cwd=folder, env=environment)

    def wait(self) -> list[float]:
        """Wait for the end of the epoch, and return its wall and CPU seconds."""
        return [round(float(number), 3) for number in self.done.read_text().split()]

    def start(self) -> None:
        """Start the next epoch."""
        self.go.write_text("go")


def train_bare(data: Path, epochs: int, device_name: str, precision: str) -> None:
    """Train without zoo, pausing after each epoch."""
    import torch
    import torchvision
    from torch.nn.functional import cross_entropy

    torch.manual_seed(0)
    device = torch.device(device_name)
    model = torchvision.models.resnet18(num_classes=10).to(device)
    model = model.to(memory_format=torch.channels_last)
    train, val = (read_batches(data / split, device) for split in ("train", "val"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01, fused=True)
    autocast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
    for _ in range(epochs):
        began, cpu = time.perf_counter(), time.process_time()
        model.train()
        for images, labels in train:
            with autocast:
                logits = model(images)
            loss = cross_entropy(logits.float(), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        model.eval()
        correct: Any = 0
        with torch.no_grad(), autocast:
            for images, labels in val:
                correct += (model(images).argmax(1) == labels).sum()
        int(correct)  # waits for the device
        seconds = time.perf_counter() - began, time.process_time() - cpu
        Path(os.environ["DONE"]).write_text(f"{seconds[0]} {seconds[1]}")
        Path(os.environ["GO"]).read_text()


def read_batches(folder: Path, device: Any) -> list[Any]:
    """Return images and labels in batches, images as normalized floats, on the device."""
    import torch

    import zoo
    from zoo.data.loader import batch_bounds
    from zoo.seeding import epoch_order

    transform = zoo.transform(zoo.Preprocess(size=224))
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    classes = sorted(path.name for path in folder.iterdir())
    order = epoch_order(len(files), 0, 1)
    batches = []
    for first, last in batch_bounds(len(files), BATCH):
        selected = [files[index] for index in order[first:last]]
        images = torch.stack([transform(file) for file in selected]).to(device)
        labels = torch.tensor([classes.index(file.parent.name) for file in selected], device=device)
        batches.append((images.contiguous(memory_format=torch.channels_last), labels))
    return batches


def measure(options: argparse.Namespace, precision: str) -> dict[str, Any]:
    """Alternate epochs of both, and return their seconds and ratios."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        classes = sorted(path.name for path in (EMBEDDED / "train").iterdir())
        parts = {"train": ("train", 0, options.images // len(classes)), "val": ("val", 0, 2)}
        copy_images(folder / "images", classes, parts)
        (folder / "pause.py").write_text(PAUSE_PLUGIN)
        epochs = str(options.rounds + 1)
        shared = ["--device", options.device, "--precision", precision]
        ours = [sys.executable, "-m", "zoo", "--plugin", str(folder / "pause.py"), "finetune"]
        ours += ["torchvision/resnet18", "--weights", "none", "--train", "all", "--cache-images"]
        ours += ["--data", str(folder / "images"), "--epochs", epochs, "--batch-size", str(BATCH)]
        theirs = [sys.executable, __file__, "--bare", str(folder / "images"), "--rounds", epochs]
        sides = {
            "zoo": Side(folder / "zoo", [*ours, *shared, "--input-size", "224"], options.threads),
            "bare": Side(folder / "bare", [*theirs, *shared], options.threads),
        }
        seconds: dict[str, list[list[float]]] = {name: [] for name in sides}
        try:
            for side in sides.values():
                side.wait()  # the first epoch decodes
            for _ in range(options.rounds):
                for name, side in sides.items():
                    side.start()
                    seconds[name].append(side.wait())
            for side in sides.values():
                side.start()
                side.process.wait()
        finally:
            for side in sides.values():
                side.process.kill()
    return summarize(seconds, options.images)


def summarize(seconds: dict[str, list[list[float]]], images: int) -> dict[str, Any]:
    """Return images per second, and the ratio of zoo to the bare loop in each round."""
    summary: dict[str, Any] = {}
    for index, clock in enumerate(CLOCKS):
        times = {name: [epoch[index] for epoch in epochs] for name, epochs in seconds.items()}
        pairs = zip(times["zoo"], times["bare"], strict=True)
        ratios = [round(bare / ours, 3) for ours, bare in pairs]
        summary[clock] = {
            "images_per_second": {
                name: round(images / statistics.median(values), 2) for name, values in times.items()
            },
            "ratios": ratios,
            "median_ratio": round(statistics.median(ratios), 3),
        }
    return {**summary, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fresh", action="store_true", help="discard earlier results")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=160, help="of the training split")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="compute threads; default of torch")
    parser.add_argument("--precision", choices=PRECISIONS, help="only this one")
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        train_bare(options.bare, options.rounds, options.device, options.precision)
        return
    results: dict[str, Any] = {}
    if RESULTS.exists() and not options.fresh:
        results = json.loads(RESULTS.read_text())
    for precision in PRECISIONS:
        key = f"{options.device} {precision}"
        if key in results or options.precision not in (None, precision):
            continue
        settings: dict[str, Any] = {"date": str(date.today()), "cores": os.cpu_count()}
        settings |= {"machine": platform.processor() or platform.machine()}
        settings |= {"images": options.images, "batch": BATCH, "threads": options.threads}
        results[key] = {**settings, **measure(options, precision)}
        RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print("| device, precision | seconds of | zoo, images/s | bare, images/s | ratio | ratios |")
    print("|---|---|---|---|---|---|")
    for key, row in results.items():
        for clock in CLOCKS:
            summary = row[clock]
            rates = " | ".join(str(summary["images_per_second"][side]) for side in SIDES)
            print(
                f"| {key} | {clock} | {rates} | {summary['median_ratio']} | {summary['ratios']} |"
            )
    low = [key for key, row in results.items() if row["clock"]["median_ratio"] < MIN_RATIO]
    print(f"below {MIN_RATIO}: {', '.join(low) or 'none'}")


if __name__ == "__main__":
    main()
