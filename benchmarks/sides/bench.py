"""Shared by the benchmarks: weights, commands and their records, result files."""

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
# Disabled: other sides write no logs.
PLUGINS = "-tensorboard,-regression"
MEMORY = "resident set of the process tree, shared pages counted once"
CLOCK = ROOT / "benchmarks/sides/clock.py"


def machine() -> str:
    """Return cores and CPU of this machine."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    return f"{os.cpu_count()} cores, {cpu}"


def versions() -> dict[str, str]:
    """Return the versions of the installed `PACKAGES`."""
    installed = {}
    for name in PACKAGES:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return installed


def start(out: Path, fresh: bool, empty: dict[str, Any], **fixed: Any) -> dict[str, Any]:
    """Return earlier results to resume, or new ones.

    Args:
        out: file of the results.
        fresh: discard earlier results.
        empty: initial results.
        fixed: settings that must equal those of earlier results, as the machine must.

    Raises:
        SystemExit: a setting differs.
    """
    fixed |= {"machine": machine(), "versions": versions()}
    results = empty
    if out.exists() and not fresh:
        results = json.loads(out.read_text())
        for name, value in fixed.items():
            if results.get(name) != value:
                message = f"{out} has results for another {name}: {results.get(name)}, not {value}"
                raise SystemExit(f"{message}; --fresh discards them")
    current = {"date": date.today().isoformat(), "python": platform.python_version()}
    return results | current | fixed | {"memory": MEMORY}


def write(results: dict[str, Any], out: Path) -> None:
    """Write results atomically."""
    partial = out.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=2) + "\n")
    partial.replace(out)


class Bench:
    """Runs the sides on a data set.

    Args:
        work: folder of images, weights, caches and model files.
        data: folder of the data set.
        workers: decoding processes of the other sides; None for the number of cores.
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
        """Return the file of the initial weights of all sides, written if missing."""
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
        """Return the folder of a side."""
        return self.work / "sides" / network / side.replace(" ", "-")

    def command(self, network: str, *options: str) -> list[str]:
        """Return the `zoo finetune` command on the data and the weights."""
        command = [sys.executable, "-m", "zoo", "finetune", network, "--data", str(self.data)]
        if not NETWORKS[network].installed:
            command += ["--weights", str(self.weights(network))]
        return [*command, *options, "--json", "--quiet"]

    def finetune(
        self, network: str, side: str, *options: str, cache: Path | None = None
    ) -> dict[str, Any]:
        """Run `zoo finetune`, and return its record.

        Args:
            network: name.
            side: name of the run.
            options: further options.
            cache: existing cache folder; None for an empty one.
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
        settings = {
            name: plan.get(name) for name in ("recipe", "precision", "workers", "batch_size")
        }
        settings["optimizer"] = plan["phases"][0].get("optimizer") if plan.get("phases") else None
        return {
            **record(done, folder / "run/model.safetensors"),
            "backbone_forwards": run["backbone_forwards"],
            "plan": settings,
        }

    def python(self, module: str) -> list[str]:
        """Return the command of another side."""
        return [sys.executable, "-m", f"benchmarks.sides.{module}"]

    def shared(self, network: str, target: Path) -> list[str]:
        """Return the options of the other sides."""
        options = {"network": network, "data": self.data, "weights": self.weights(network)}
        options |= {"workers": self.workers, "out": target}
        return [text for name, value in options.items() for text in (f"--{name}", str(value))]


def record(done: Watched, model: Path) -> dict[str, Any]:
    """Return the record of a training."""
    return {
        "seconds": round(done.seconds, 2),
        "startup": None if done.startup is None else round(done.startup, 2),
        "epochs": [round(seconds, 2) for seconds in done.epochs],
        "memory_mb": done.memory_mb and round(done.memory_mb),
        "model": str(model),
    }
