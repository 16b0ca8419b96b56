"""Time commands up to the first image, against the imports that their backbone needs.

    uv run python -m benchmarks.start_up [--runs 5]

All in interleaved processes, with bytecode; "cold" is without zoo's cache: no catalogue, no
converted weights, no features. Prints a table and writes `start_up.json`. On a shared machine,
compare ratios within one run rather than times.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.harness.bench import PLUGINS, ROOT, describe_machine, installed_versions
from benchmarks.harness.marks import MARKS

TIMM, TORCHVISION = "import torch, torchvision, timm", "import torch, torchvision"
PLUGIN = ROOT / "benchmarks/harness/first_image_plugin.py"
FINETUNE = ["finetune", "{name}", "--data", "{data}", "--out", "run", "--quiet"]
EMBED = ["embed", "{name}", "--data", "{data}", "--out", "out.safetensors", "--quiet"]
RANK = ["rank", "{name}", "--data", "{data}", "--quiet"]
PREDICT = ["predict", "{name}", "{data}/a/0.jpg"]
# Of a command: its arguments, the network, the imports that it needs, whether the cache is warm.
COMMANDS = {
    "embed, cold": (EMBED, "lite0", TIMM, False),
    "embed, warm": (EMBED, "lite0", TIMM, True),
    "predict, warm": (PREDICT, "lite0", TIMM, True),
    "rank, warm": (RANK, "lite0", TIMM, True),
    "finetune, warm": (FINETUNE, "lite0", TIMM, True),
    "finetune mobilenet_v2, cold": (
        [*FINETUNE, "--weights", "none"],
        "torchvision/mobilenet_v2",
        TORCHVISION,
        False,
    ),
}
QUIET = subprocess.DEVNULL
BARS = {"cold": 1.5, "warm": 1.2}


def write_images(data: Path) -> None:
    """Write 32 JPEGs in two folders."""
    random = np.random.default_rng(0)
    for number in range(32):
        path = data / "ab"[number % 2] / f"{number // 2}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = random.integers(0, 255, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((500, 375)).save(path)


def run(name: str, work: Path, to_end: bool = False) -> float:
    """Run a command up to its first image, and return the seconds until that is opened.

    Args:
        name: of the command.
        work: folder of the data and the cache.
        to_end: let it finish, to fill the cache.
    """
    arguments, network, _, warm = COMMANDS[name]
    marks, data, cache = work / "marks", work / "data", work / "cache"
    shutil.rmtree(work / "run", ignore_errors=True)
    marks.unlink(missing_ok=True)
    if not warm:
        cache = work / "cold"
        shutil.rmtree(cache, ignore_errors=True)
    given = [each.format(name=network, data=data) for each in arguments]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "XDG_CACHE_HOME": str(cache),
        "XDG_CONFIG_HOME": str(work / "config"),
        "ZOO_PLUGINS": PLUGINS,
        "BENCHMARK_IMAGES": str(data),
        MARKS: str(marks),
    }
    command = [sys.executable, "-m", "zoo", *given, "--plugin", str(PLUGIN)]
    began = time.time()
    with subprocess.Popen(
        command, cwd=work, env=environment, stdout=QUIET, stderr=QUIET
    ) as process:
        while process.poll() is None and (to_end or not marks.exists()):
            time.sleep(0.02)
        process.kill()
    if not marks.exists():
        raise SystemExit(f"{name}: no image was opened, exit code {process.returncode}")
    return float(json.loads(marks.read_text().splitlines()[0])["at"]) - began


def run_imports(imports: str) -> float:
    """Return the seconds of a process that only imports libraries, without its exit."""
    began = time.time()
    subprocess.run([sys.executable, "-c", f"{imports}; import os; os._exit(0)"], check=True)
    return time.time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    runs = parser.parse_args().runs
    seconds: dict[str, list[float]] = {name: [] for name in (TIMM, TORCHVISION, *COMMANDS)}
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        write_images(work / "data")
        for turn in range(-1, runs):  # the first fills the cache
            for name, times in seconds.items():
                filling = turn < 0 and name in COMMANDS and COMMANDS[name][3]
                taken = run(name, work, filling) if name in COMMANDS else run_imports(name)
                if turn >= 0:
                    times.append(taken)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    rows = {}
    for name, (_, _, imports, warm) in COMMANDS.items():
        ratio, bar = median[name] / median[imports], BARS["warm" if warm else "cold"]
        rows[name] = {"imports": imports, "median_seconds": round(median[name], 2)}
        rows[name] |= {"ratio": round(ratio, 2), "bar": bar}
        print(f"{name:<30}{median[name]:>7.2f}s{ratio:>7.2f}   limit {bar}")
    result = {
        "machine": describe_machine(),
        "versions": installed_versions(),
        "runs": runs,
        "until": "the first image is opened",
        "imports": {name: round(median[name], 2) for name in (TIMM, TORCHVISION)},
        "commands": rows,
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
