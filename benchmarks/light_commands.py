"""Time the light commands against `python -c "import click"`, interleaved, as whole processes.

    uv run python benchmarks/light_commands.py [--runs 7]

Prints a table and writes `light_commands.json`. On a shared machine, compare ratios within one run
rather than times.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

BASE = "import click"
MAX_RATIO = 4.0
# For comparison: listing a library of the same networks.
TIMM_LIST = "import timm; timm.list_models()"
COMMANDS = {
    BASE: ["-c", BASE],
    TIMM_LIST: ["-c", TIMM_LIST],
    "zoo --help": ["-m", "zoo", "--help"],
    "zoo finetune --help": ["-m", "zoo", "finetune", "--help"],
    "zoo list": ["-m", "zoo", "list"],
    "zoo list --json": ["-m", "zoo", "list", "--json"],
    "zoo show resnet18": ["-m", "zoo", "show", "resnet18"],
    "zoo show timm/resnet18": ["-m", "zoo", "show", "timm/resnet18"],
    "zoo plugins": ["-m", "zoo", "plugins"],
    "completion": ["-m", "zoo"],
}
COMPLETION = {"_ZOO_COMPLETE": "bash_complete", "COMP_WORDS": "zoo fi", "COMP_CWORD": "1"}


def run(name: str) -> float:
    """Run a command, and return its wall time in seconds."""
    environment = {**os.environ, **(COMPLETION if name == "completion" else {})}
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, *COMMANDS[name]], check=True, capture_output=True, env=environment
    )
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=7)
    runs = parser.parse_args().runs
    for name in COMMANDS:
        run(name)  # warm-up: fills the catalogue and the page cache
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(runs):
        for name in COMMANDS:
            seconds[name].append(run(name))
    base = statistics.median(seconds[BASE])
    rows = {
        name: {
            "median_seconds": round(statistics.median(times), 4),
            "ratio": round(statistics.median(times) / base, 2),
        }
        for name, times in seconds.items()
    }
    print(f"{'command':<34}{'median':>9}{'ratio':>8}   limit {MAX_RATIO}")
    for name, row in rows.items():
        print(f"{name:<34}{row['median_seconds']:>8.3f}s{row['ratio']:>8.2f}")
    result = {
        "date": date.today().isoformat(),
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "python": platform.python_version(),
        "runs": runs,
        "bar": MAX_RATIO,
        "commands": rows,
    }
    target = Path(__file__).with_suffix(".json")
    target.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
