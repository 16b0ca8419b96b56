"""Train all layers with zoo, and with a bare loop on tensors in memory: images per second.

    uv run python benchmarks/all_layers.py [--fresh] [--rounds 5] [--images 160] [--threads 1]

Both train resnet18 from random weights on the embedded images at 224 pixels, with batches of 32,
the same precision and memory format, and fused AdamW. zoo caches decoded images (`--cache-images`);
the bare loop has its batches as normalized floats on the device, and only runs forward, loss,
backward and step. Each is a separate process, and their epochs alternate from the second epoch on,
so that other load on the machine affects both. An epoch validates on two images per class. Results
are written to `all_layers.json` as they are measured, so that an interrupted run resumes; the table
is printed at the end. On a shared machine, CPU seconds are more reliable than wall time.
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

from tests.docs.workplace import copy_images  # noqa: E402
from zoo.tasks.classification.data.sources import EMBEDDED  # noqa: E402

RESULTS = Path(__file__).with_suffix(".json")
SIDES = ("zoo", "bare")
PRECISIONS = ("fp32", "bf16")
BATCH = 32
BAR = 0.95
CLOCKS = ("clock", "cpu")
GATE = """
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
    """One of the two processes, which blocks after each epoch.

    Args:
        folder: of its pipes.
        command: to run.
        threads: for computation; None for torch's default.
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
        """Wait for the end of the epoch; return its wall and CPU seconds."""
        return [round(float(number), 3) for number in self.done.read_text().split()]

    def start(self) -> None:
        """Start the next epoch."""
        self.go.write_text("go")


def bare(data: Path, epochs: int, device_name: str, precision: str) -> None:
    """Train without zoo, epoch by epoch."""
    import torch
    import torchvision
    from torch.nn.functional import cross_entropy

    torch.manual_seed(0)
    device = torch.device(device_name)
    model = torchvision.models.resnet18(num_classes=10).to(device)
    model = model.to(memory_format=torch.channels_last)
    train, val = (read(data / split, device) for split in ("train", "val"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01, fused=True)
    cast = torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")
    for _ in range(epochs):
        began, cpu = time.perf_counter(), time.process_time()
        model.train()
        for images, labels in train:
            with cast:
                logits = model(images)
            loss = cross_entropy(logits.float(), labels)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        model.eval()
        hits = 0
        with torch.no_grad(), cast:
            for images, labels in val:
                hits += (model(images).argmax(1) == labels).sum()
        int(hits)  # synchronise
        seconds = time.perf_counter() - began, time.process_time() - cpu
        Path(os.environ["DONE"]).write_text(f"{seconds[0]} {seconds[1]}")
        Path(os.environ["GO"]).read_text()


def read(folder: Path, device: Any) -> list[Any]:
    """Return images as batches of normalized floats on the device."""
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
        paths = [files[index] for index in order[first:last]]
        images = torch.stack([transform(file) for file in paths]).to(device)
        labels = torch.tensor([classes.index(file.parent.name) for file in paths], device=device)
        batches.append((images.contiguous(memory_format=torch.channels_last), labels))
    return batches


def measure(options: argparse.Namespace, precision: str) -> dict[str, Any]:
    """Alternate the epochs of both, and return their seconds and ratios."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        classes = sorted(path.name for path in (EMBEDDED / "train").iterdir())
        parts = {"train": ("train", 0, options.images // len(classes)), "val": ("val", 0, 2)}
        copy_images(folder / "photos", classes, parts)
        (folder / "gate.py").write_text(GATE)
        epochs = str(options.rounds + 1)
        shared = ["--device", options.device, "--precision", precision]
        ours = [sys.executable, "-m", "zoo", "--plugin", str(folder / "gate.py"), "finetune"]
        ours += ["torchvision/resnet18", "--weights", "none", "--train", "all", "--cache-images"]
        ours += ["--data", str(folder / "photos"), "--epochs", epochs, "--batch-size", str(BATCH)]
        theirs = [sys.executable, __file__, "--bare", str(folder / "photos"), "--rounds", epochs]
        sides = {
            "zoo": Side(folder / "zoo", [*ours, *shared, "--input-size", "224"], options.threads),
            "bare": Side(folder / "bare", [*theirs, *shared], options.threads),
        }
        seconds: dict[str, list[list[float]]] = {name: [] for name in sides}
        try:
            for side in sides.values():
                side.wait()  # the first epoch, which decodes
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
    """Return images per second of both, and the ratio of each pair of epochs."""
    summary: dict[str, Any] = {}
    for index, clock in enumerate(CLOCKS):
        times = {name: [both[index] for both in turns] for name, turns in seconds.items()}
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
    parser.add_argument("--images", type=int, default=160, help="training images")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="for computation; default of torch")
    parser.add_argument("--precision", choices=PRECISIONS, help="measure one only")
    parser.add_argument("--bare", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.bare:
        bare(options.bare, options.rounds, options.device, options.precision)
        return
    results: dict[str, Any] = {}
    if RESULTS.exists() and not options.fresh:
        results = json.loads(RESULTS.read_text())
    for precision in PRECISIONS:
        key = f"{options.device} {precision}"
        if key in results or options.precision not in (None, precision):
            continue
        about = {"date": str(date.today()), "machine": platform.processor() or platform.machine()}
        about |= {"cores": os.cpu_count(), "images": options.images, "batch": BATCH}
        about |= {"threads": options.threads}
        results[key] = {**about, **measure(options, precision)}
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
    low = [key for key, row in results.items() if row["clock"]["median_ratio"] < BAR]
    print(f"below the bar of {BAR}: {', '.join(low) or 'none'}")


if __name__ == "__main__":
    main()
