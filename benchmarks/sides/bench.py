"""What the measurements share: weights, commands and their records, and results that are kept."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.sides.networks import NETWORKS, build
from benchmarks.sides.watch import Watched, watch

ROOT = Path(__file__).parents[2]
PACKAGES = ("torch", "torchvision", "timm", "fastai", "transformers", "accelerate")
# It would write into every run folder, which no other side does.
PLUGINS = "-tensorboard,-regression"
MEMORY = "resident set of the process tree, what its processes share counted once"
CLOCK = ROOT / "benchmarks/sides/clock.py"


def machine() -> str:
    """Return what this machine is, in a few words."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    return f"{os.cpu_count()} cores, {cpu}"


def versions() -> dict[str, str]:
    """Return the versions of what is measured, as far as it is installed."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def start(out: Path, fresh: bool, empty: dict[str, Any], **fixed: Any) -> dict[str, Any]:
    """Return earlier results that a run can go on with, or new ones.

    Args:
        out: where they are.
        fresh: whether to forget them.
        empty: what there is before anything was measured.
        fixed: must be the same as it was, as the machine must.

    Raises:
        SystemExit: something is not.
    """
    fixed |= {"machine": machine(), "versions": versions()}
    results = empty
    if out.exists() and not fresh:
        results = json.loads(out.read_text())
        for name, value in fixed.items():
            if results.get(name) != value:
                said = f"{out} has results of other {name}: {results.get(name)}, and now {value}"
                raise SystemExit(f"{said}; give --fresh to forget them")
    said = {"date": date.today().isoformat(), "python": platform.python_version()}
    return results | said | fixed | {"memory": MEMORY}


def keep(results: dict[str, Any], out: Path) -> None:
    """Write results, whole or not at all."""
    partial = out.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=2) + "\n")
    partial.replace(out)


class Bench:
    """All sides on one set of pictures.

    Args:
        work: a folder for pictures, weights, caches and model files.
        data: the pictures.
        workers: processes in which the other sides decode; None for as many as there are cores.
    """

    def __init__(self, work: Path, data: Path, workers: int | None = None) -> None:
        self.work, self.data = work, data
        self.workers = workers or os.cpu_count() or 1
        self.environment = {
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "XDG_CONFIG_HOME": str(work / "config"),
            "XDG_CACHE_HOME": str(work / "cache"),
            "HF_HUB_OFFLINE": "1",
            "ZOO_PLUGINS": PLUGINS,
        }

    def weights(self, network: str) -> Path:
        """Return the file of the weights that all sides start from, written once."""
        file = self.work / f"{network}.safetensors"
        if not file.exists():
            import torch
            from safetensors.torch import save_file

            import zoo

            torch.manual_seed(0)
            described = NETWORKS[network]
            real = zoo.get(network).build(weights="auto") if described.installed else None
            model = real if real is not None else build(described)
            save_file(model.state_dict(), file.with_suffix(".partial"))
            file.with_suffix(".partial").rename(file)
        return file

    def folder(self, network: str, side: str) -> Path:
        """Return the folder that a side works in."""
        return self.work / "sides" / network / side.replace(" ", "-")

    def command(self, network: str, *options: str) -> list[str]:
        """Return `zoo finetune` on the pictures and the weights."""
        command = [sys.executable, "-m", "zoo", "finetune", network, "--data", str(self.data)]
        if not NETWORKS[network].installed:
            command += ["--weights", str(self.weights(network))]
        return [*command, *options, "--json", "--quiet"]

    def finetune(
        self, network: str, side: str, *options: str, cache: Path | None = None
    ) -> dict[str, Any]:
        """Run `zoo finetune`, and return its record.

        Args:
            network: which.
            side: what this run is called.
            options: further ones.
            cache: a folder to go on with; None for a fresh one.
        """
        folder = self.folder(network, side)
        if cache is None:
            cache = folder / "cache"
            shutil.rmtree(cache, ignore_errors=True)
        shutil.rmtree(folder / "run", ignore_errors=True)
        command = self.command(network, *options, "--out", str(folder / "run"))
        environment = {**self.environment, "XDG_CACHE_HOME": str(cache)}
        done = watch([*command, "--plugin", str(CLOCK)], folder, environment)
        run = json.loads(done.output)
        plan = run["plan"]
        told = {name: plan.get(name) for name in ("recipe", "precision", "workers", "batch_size")}
        told["optimizer"] = plan["phases"][0].get("optimizer") if plan.get("phases") else None
        return {
            **record(done, folder / "run/model.safetensors"),
            "backbone_forwards": run["backbone_forwards"],
            "plan": told,
        }

    def python(self, module: str) -> list[str]:
        """Return what runs a side that is not zoo's."""
        return [sys.executable, "-m", f"benchmarks.sides.{module}"]

    def shared(self, network: str, target: Path) -> list[str]:
        """Return the options that all such sides take."""
        options = {"network": network, "data": self.data, "weights": self.weights(network)}
        options |= {"workers": self.workers, "out": target}
        return [text for name, value in options.items() for text in (f"--{name}", str(value))]


def record(done: Watched, model: Path) -> dict[str, Any]:
    """Return what is kept of a training."""
    return {
        "seconds": round(done.seconds, 2),
        "startup": None if done.startup is None else round(done.startup, 2),
        "epochs": [round(seconds, 2) for seconds in done.epochs],
        "memory_mb": done.memory_mb and round(done.memory_mb),
        "model": str(model),
    }
