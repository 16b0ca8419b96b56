"""Shared by the benchmarks: weights, commands and their records, and files of results."""

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

from benchmarks.harness.monitor import Completed, run_monitored
from benchmarks.harness.networks import NETWORKS, build

ROOT = Path(__file__).parents[2]
PACKAGES = ("torch", "torchvision", "timm", "fastai", "transformers", "accelerate")
# Without the plugin that writes into every run folder, which no other training does.
PLUGINS = "-tensorboard,-regression"
MEMORY = "resident set of the process tree, shared memory counted once"
MARKS_PLUGIN = ROOT / "benchmarks/harness/marks_plugin.py"


def describe_machine() -> str:
    """Return the number of cores, the model of the CPU, and which instructions it has.

    CPUs of one name differ by several times in them.
    """
    cpu, flags = platform.processor() or platform.machine(), set()
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.exists() else ():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            cpu = value.strip()
        elif name.strip() == "flags":
            flags = set(value.split())
            break
    known = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
    return ", ".join([f"{os.cpu_count()} cores", cpu, *(each for each in known if each in flags)])


def installed_versions() -> dict[str, str]:
    """Return the versions of the measured packages that are installed."""
    installed = {}
    for name in PACKAGES:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return installed


def load_results(out: Path, fresh: bool, empty: dict[str, Any], **settings: Any) -> dict[str, Any]:
    """Return earlier results to resume from, or empty ones.

    Args:
        out: file of results.
        fresh: discard earlier results.
        empty: results before the first measurement.
        settings: must equal those of the earlier results, like machine and versions.

    Raises:
        SystemExit: they differ.
    """
    settings |= {"machine": describe_machine(), "versions": installed_versions()}
    results: dict[str, Any] = empty
    if out.exists() and not fresh:
        results = json.loads(out.read_text())
        for name, value in settings.items():
            if (earlier := results.get(name)) != value:
                message = f"{out} has results with another {name}: {earlier}, now {value}"
                raise SystemExit(f"{message}; discard them with --fresh")
    environment = {"date": date.today().isoformat(), "python": platform.python_version()}
    return results | environment | settings | {"memory": MEMORY}


def write_results(results: dict[str, Any], out: Path) -> None:
    """Write results atomically."""
    partial = out.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=2) + "\n")
    partial.replace(out)


class Bench:
    """Trainings of zoo and of other programs on one data set.

    Args:
        work: folder for weights, caches and model files.
        data: folder of images.
        workers: number of decoding processes of the other programs; None for that of the cores.
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
        """Return the file of the initial weights of all trainings, written once."""
        file = self.work / f"{network}.safetensors"
        if not file.exists():
            import torch
            from safetensors.torch import save_file

            import zoo

            torch.manual_seed(0)
            entry = NETWORKS[network]
            installed = zoo.get(network).build(weights="auto") if entry.installed else None
            model = installed if installed is not None else build(entry)
            save_file(model.state_dict(), file.with_suffix(".partial"))
            file.with_suffix(".partial").rename(file)
        return file

    def folder(self, network: str, side: str) -> Path:
        """Return the working directory of a side of the comparison."""
        return self.work / "sides" / network / side.replace(" ", "-")

    def command(self, network: str, *options: str) -> list[str]:
        """Return the command of `zoo finetune` with the data and the initial weights."""
        command = [sys.executable, "-m", "zoo", "finetune", network, "--data", str(self.data)]
        if not NETWORKS[network].installed:
            command += ["--weights", str(self.weights(network))]
        return [*command, *options, "--json", "--quiet"]

    def finetune(
        self, network: str, side: str, *options: str, cache: Path | None = None
    ) -> dict[str, Any]:
        """Run `zoo finetune`, and return its record.

        Args:
            network: a name of `NETWORKS`.
            side: name of this run.
            options: further options.
            cache: `XDG_CACHE_HOME` of an earlier run; None for an empty one.
        """
        folder = self.folder(network, side)
        if cache is None:
            cache = folder / "cache"
            shutil.rmtree(cache, ignore_errors=True)
        shutil.rmtree(folder / "run", ignore_errors=True)
        command = self.command(network, *options, "--out", str(folder / "run"))
        environment = {**self.environment, "XDG_CACHE_HOME": str(cache)}
        command += ["--plugin", str(MARKS_PLUGIN)]
        completed = run_monitored(command, folder, environment)
        run = json.loads(completed.output)
        plan = run["plan"]
        settings = {
            name: plan.get(name) for name in ("recipe", "precision", "workers", "batch_size")
        }
        settings["optimizer"] = plan["phases"][0].get("optimizer") if plan.get("phases") else None
        return {
            **to_record(completed, folder / "run/model.safetensors"),
            "backbone_forwards": run["backbone_forwards"],
            "plan": settings,
        }

    def python(self, module: str) -> list[str]:
        """Return the command that runs a module of this package."""
        return [sys.executable, "-m", f"benchmarks.harness.{module}"]

    def options(self, network: str, target: Path) -> list[str]:
        """Return the options that all programs other than zoo take."""
        options = {"network": network, "data": self.data, "weights": self.weights(network)}
        options |= {"workers": self.workers, "out": target}
        return [text for name, value in options.items() for text in (f"--{name}", str(value))]


def to_record(completed: Completed, model: Path) -> dict[str, Any]:
    """Return the record of a training for the results."""
    return {
        "seconds": round(completed.seconds, 2),
        "startup": completed.startup and round(completed.startup, 2),
        "epochs": [round(seconds, 2) for seconds in completed.epochs],
        "memory_mb": completed.memory_mb and round(completed.memory_mb),
        "model": str(model),
    }
