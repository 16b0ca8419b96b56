"""Check and measure zoo on a machine with a GPU; `benchmarks/gpu.sh` runs it.

    python -m benchmarks.gpu --out DIR [--device cuda] [--seconds 400] [--section NAME]

Sections, each written to `gpu.json` when it is done, with its error where it fails:

- `tests`: those that need a CUDA device.
- `memory`: a training that runs out of memory, whose micro-batch is halved.
- `training`: of all layers, beside a bare loop on tensors in memory (`all_layers.py`).
- `processes`: two processes by gloo on the CPU, and one by NCCL, which refuses two on one GPU.
- `reading`: images per second of reading batches into memory for the device, by threads and by
  processes.
- `passes`: of each network, images per second of the pass that computes and stores features, by the
  engines torch and compile; of bare forwards of batches on the device (eager, channels last, and
  compiled); and of decoding and resizing the images on all cores, alone. The ratio is that of the
  faster pass to the slower one of decoding and the compiled forward.

With `--device cpu --small`, a tiny network and few images try the program, and measure nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

import zoo
from benchmarks import all_layers
from benchmarks.harness.bench import ROOT, describe_machine, installed_versions
from benchmarks.predict import write_files
from zoo.data.all_images import AllImages
from zoo.data.dataset import Sample, SampleTransform, read_sample
from zoo.data.images import noise
from zoo.data.loader import load_batches
from zoo.data.split import FileSplit
from zoo.data.transforms import normalize
from zoo.engine.backends.choice import engine_of
from zoo.engine.features.cache import feature_batch
from zoo.engine.runtime.device import autocast, available_cores, reader_threads, resolve_precision
from zoo.engine.runtime.network import Network
from zoo.inference.embed import embedding
from zoo.inference.predictor import Predictor
from zoo.models.freeze import freeze
from zoo.models.provenance import provenance_of
from zoo.registry.registry import load_registry
from zoo.tasks.base import Schema, load_task
from zoo.terminal import Progress

NETWORKS = ("torchvision/resnet50", "timm/vit_base_patch16_224", "torchvision/convnext_tiny")
SMALL = ("timm/test_resnet",)
ENGINES = ("torch", "compile")
# Files, each of which is read several times: writing them takes longer than reading.
FILES, REPEATED = 256, 192
# Seconds of the tests, and of each process.
TEST_SECONDS, PROCESS_SECONDS = 150, 45
# Free memory of the training that is to run out of it, in bytes: too little for a batch.
MEMORY = 4 << 30

Options = argparse.Namespace


def synchronize(device: torch.device) -> None:
    """Wait for a GPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def rate(run: Callable[[], object], images: int, device: torch.device, seconds: float) -> float:
    """Return images per second of a function that runs several, after a warm-up."""
    run()
    synchronize(device)
    began, count = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        run()
        synchronize(device)
        count += 1
    return count * images / (time.perf_counter() - began)


def build(name: str, device: torch.device) -> Network:
    """Return a frozen network with random weights, as a training has it."""
    torch.manual_seed(0)
    module = zoo.get(name).build(classes=10, weights=None)
    freeze(module)
    backbone = provenance_of(module).backbone
    task = load_task(load_registry().task(backbone.task))
    precision, _ = resolve_precision("auto", device)
    return Network(module, backbone.heads, backbone.preprocess, device, precision, task)


def bare_forwards(network: Network, batch: int, seconds: float, backend: str) -> dict[str, Any]:
    """Return images per second of forwards of a batch on the device, without zoo."""
    device = network.device
    pixels = normalize(noise(batch, network.preprocess, seed=0), network.preprocess).to(device)
    module: nn.Module = copy.deepcopy(network.module).eval()

    def forward(compiled: Callable[[Tensor], object], images: Tensor) -> Callable[[], object]:
        def run() -> object:
            with torch.no_grad(), autocast(device, network.precision):
                return compiled(images)

        return run

    rates: dict[str, Any] = {}
    for name in ("eager", "channels_last", "compiled"):
        last = torch.channels_last if name != "eager" else torch.contiguous_format
        module = module.to(memory_format=last)
        images = pixels.contiguous(memory_format=last)
        try:
            called = torch.compile(module, backend=backend) if name == "compiled" else module
            rates[name] = round(rate(forward(called, images), batch, device, seconds), 1)
        except Exception as error:  # such as without a compiler
            rates[name] = f"{type(error).__name__}: {str(error)[:200]}"
    return rates


def decoding(split: FileSplit, network: Network, cores: int) -> float:
    """Return images per second that as many processes decode, resize and digest as there are cores.

    What they have read is not sent anywhere.
    """
    read_all = partial(_read_all, split, SampleTransform(network.preprocess))
    positions = range(len(split) // 2)
    with multiprocessing.get_context("fork").Pool(cores) as pool:
        pool.map(read_all, [positions[:1]] * cores, chunksize=1)
        began = time.perf_counter()
        assert sum(pool.map(read_all, [positions[n::cores] for n in range(cores)])) == len(
            positions
        )
        return len(positions) / (time.perf_counter() - began)


def _read_all(split: FileSplit, transform: SampleTransform, positions: range) -> int:
    """Read images in a process, and return how many."""
    torch.set_num_threads(1)
    read = (read_sample(split, transform, position, digest=True) for position in positions)
    return sum(isinstance(sample, Sample) for sample in read)


def measure_reading(options: Options) -> dict[str, Any]:
    """Measure reading by different numbers of threads and processes."""
    device, cores = torch.device(options.device), 2 if options.small else available_cores()
    network = build((SMALL if options.small else NETWORKS)[0], device)
    batch, transform = feature_batch(device), SampleTransform(network.preprocess)
    threads = sorted({1, 2, reader_threads(device)[0], 8, cores})
    rates = {}
    with _files(options) as split:
        for number, workers in [*((each, 0) for each in threads), (0, cores // 2), (0, cores)]:
            order = range(len(split) // (1 if options.small else 2 if workers else 16))
            began = time.perf_counter()
            batches = load_batches(
                split,
                transform,
                order,
                batch,
                workers,
                pin_memory=device.type == "cuda",
                digest=True,
                threads=number,
            )
            assert sum(map(len, batches)) == len(order)
            name = f"{workers} processes" if workers else f"{number} threads"
            rates[name] = round(len(order) / (time.perf_counter() - began), 1)
    return rates


@contextlib.contextmanager
def _files(options: Options) -> Iterator[FileSplit]:
    """Write JPEGs, each of which is read several times."""
    with tempfile.TemporaryDirectory() as work:
        paths = write_files(Path(work), 8 if options.small else FILES)
        names = tuple(path.name for path in paths) * (1 if options.small else REPEATED)
        yield FileSplit("all", paths[0].parent, names, (0,) * len(names))


def computing(network: Network, batch: int, engine: str, seconds: float) -> float:
    """Return images per second of an engine on batches in memory, copied to the device and back."""
    pixels = noise(batch, network.preprocess, seed=0)
    pixels = pixels.pin_memory() if network.device.type == "cuda" else pixels
    run = engine_of(network, engine, batch).compute
    return rate(lambda: run(pixels), batch, network.device, seconds)


def run_pass(split: FileSplit, network: Network, batch: int, engine: str) -> float:
    """Return images per second of the pass, into an empty cache, after the first batch."""
    engine_of(network, engine, batch).compute(noise(batch, network.preprocess, seed=0))
    network.forwards = 0
    model = Predictor(network, Schema(), provenance_of(network.module).backbone.id)
    images = AllImages("all", (split,), ())
    with tempfile.TemporaryDirectory() as cache, _environment(XDG_CACHE_HOME=cache):
        began = time.perf_counter()
        with embedding(model, images, Progress(quiet=True), 1 << 40, engine=engine):
            assert network.forwards >= len(split)
            return len(split) / (time.perf_counter() - began)


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Set variables of the environment in the block."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def measure_passes(options: Options) -> dict[str, Any]:
    """Measure the pass of each network, and its parts."""
    device, seconds = torch.device(options.device), 0.1 if options.small else 1.5
    results: dict[str, Any] = {}
    cores = available_cores()
    with _files(options) as split:
        for name in SMALL if options.small else NETWORKS:
            if time.monotonic() > options.until:
                results[name] = "no time was left"
                continue
            network = build(name, device)
            batch = 4 if options.small and device.type != "cuda" else feature_batch(device)
            one: dict[str, Any] = {"precision": network.precision, "batch": batch}
            backend = "eager" if options.small else "inductor"
            one["forward"] = bare_forwards(network, batch, seconds, backend)
            decoded = [decoding(split, network, 2 if options.small else cores)]
            one["computing"], one["pass"] = {}, {}
            for engine in ENGINES[:1] if options.small else ENGINES:
                try:
                    done = computing(network, batch, engine, seconds)
                    one["computing"][engine] = round(done, 1)
                    done = run_pass(split, network, feature_batch(device), engine)
                    one["pass"][engine] = round(done, 1)
                except Exception as error:
                    one["pass"][engine] = f"{type(error).__name__}: {str(error)[:200]}"
            # Before and after the passes: the rate of a machine varies.
            decoded.append(decoding(split, network, 2 if options.small else cores))
            one["decoding"] = round(fmean(decoded), 1)
            rates = [each for each in one["pass"].values() if isinstance(each, float)]
            compiled = one["forward"]["compiled"]
            if rates and isinstance(compiled, float):
                one["ratio"] = round(max(rates) / min(one["decoding"], compiled), 3)
            print(name, json.dumps(one), flush=True)
            results[name] = one
            del network
    return results


def run_tests(options: Options) -> dict[str, Any]:
    """Run the tests that need a CUDA device."""
    # Without the options of the configuration, which need plugins of pytest.
    command = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "-m", "cuda", "-rf"]
    command += ["--import-mode", "importlib", "-p", "no:cacheprovider"]
    command += ["tests/data/test_loader.py" if options.small else "tests"]
    return run(command, TEST_SECONDS)


def run(command: list[str], seconds: float) -> dict[str, Any]:
    """Run a program in the repository, and return its exit code and last lines."""
    began = time.perf_counter()
    try:
        done = subprocess.run(
            command, cwd=ROOT, capture_output=True, text=True, errors="replace", timeout=seconds
        )
        code: int | str = done.returncode
        text = done.stdout + done.stderr
    except subprocess.TimeoutExpired as error:
        code = f"more than {seconds:g} s"
        text = (error.stdout or b"").decode(errors="replace")
    took = round(time.perf_counter() - began, 1)
    return {"code": code, "seconds": took, "output": text.strip().splitlines()[-15:]}


def measure_training(options: Options) -> dict[str, Any]:
    """Measure the training of all layers beside a bare loop."""
    images, rounds = (20, 1) if options.small else (160, 5)
    settings = argparse.Namespace(
        device=options.device, images=images, rounds=rounds, threads=None, precision=None
    )
    precision, _ = resolve_precision("auto", torch.device(options.device))
    return {precision: all_layers.measure(settings, precision)}


def run_out_of_memory(options: Options) -> dict[str, Any]:
    """Train with less memory than a batch takes, and return what the run adjusted."""
    device = torch.device(options.device)
    name, batch = ("timm/test_resnet", 16) if options.small else ("torchvision/resnet50", 256)
    size = None if options.small else 224  # of the embedded images, 96 otherwise
    with tempfile.TemporaryDirectory() as out, _limited_memory(device, batch):
        training = zoo.finetune(
            name,
            weights="none",
            train="all",
            epochs=1,
            batch_size=batch,
            input_size=size,
            device=options.device,
            out=Path(out) / "run",
            seed=0,
        )
        adjustments = training.record["adjustments"]
    peak = torch.cuda.max_memory_reserved(device) if device.type == "cuda" else None
    assert any(each["name"] == "micro_batch_size" for each in adjustments), (peak, adjustments)
    return {"batch_size": batch, "adjustments": adjustments, "peak_bytes": peak}


@contextlib.contextmanager
def _limited_memory(device: torch.device, batch: int) -> Iterator[None]:
    """Occupy the memory of the GPU; on the CPU, raise torch's error for more than half a batch."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info(device)
        occupied = torch.empty(free - MEMORY, dtype=torch.uint8, device=device)
        try:
            yield
        finally:
            del occupied
            torch.cuda.empty_cache()
        return

    def refuse(module: nn.Module, inputs: tuple[Any, ...]) -> None:
        images = inputs[0] if inputs else None
        if torch.is_grad_enabled() and isinstance(images, Tensor) and len(images) > batch // 2:
            raise torch.OutOfMemoryError("out of memory, for this trial")

    hook = nn.modules.module.register_module_forward_pre_hook(refuse)
    try:
        yield
    finally:
        hook.remove()


def run_processes(options: Options) -> dict[str, Any]:
    """Train in two processes on the CPU, and in one on a GPU: zoo refuses several on the same."""
    results: dict[str, Any] = {}
    name = "timm/test_resnet" if options.small else "torchvision/resnet18"
    counts = {"cpu": 2} | ({"cuda": 1} if options.device.startswith("cuda") else {})
    for device, count in counts.items():
        with tempfile.TemporaryDirectory() as out:
            command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
            command += ["--nproc-per-node", str(count), "-m", "zoo", "finetune", name]
            command += ["--weights", "none", "--epochs", "1", "--device", device]
            command += ["--out", f"{out}/run", "--quiet"]
            results[device] = run(command, PROCESS_SECONDS)
            results[device]["model"] = (Path(out) / "run/model.safetensors").exists()
    return results


SECTIONS: dict[str, Callable[[Options], dict[str, Any]]] = {
    "tests": run_tests,
    "memory": run_out_of_memory,
    "training": measure_training,
    "processes": run_processes,
    "reading": measure_reading,
    "passes": measure_passes,
}


def describe(device: torch.device) -> dict[str, Any]:
    """Return the machine and its libraries."""
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {"machine": describe_machine(), "gpu": gpu, "versions": installed_versions()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path(), help="folder of gpu.json")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="a trial with tiny sizes")
    parser.add_argument("--seconds", type=float, default=400, help="start no section after these")
    parser.add_argument("--section", action="append", choices=SECTIONS, help="all if omitted")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    began, target = time.monotonic(), options.out / "gpu.json"
    options.until = began + options.seconds - (0 if options.small else 60)
    results: dict[str, Any] = {"small": options.small, **describe(torch.device(options.device))}
    failed = False
    for name in options.section or SECTIONS:
        start = time.monotonic()
        try:
            if start > options.until:
                raise TimeoutError(f"no time was left after {start - began:.0f} s")
            results[name] = SECTIONS[name](options)
        except Exception as error:
            results[name] = {"error": f"{type(error).__name__}: {error}"}
            results[name]["traceback"] = traceback.format_exc().splitlines()[-8:]
            failed = True
        results[name]["section_seconds"] = round(time.monotonic() - start, 1)
        target.write_text(json.dumps(results, indent=2) + "\n")
        print(name, json.dumps(results[name])[:2000], flush=True)
    sys.exit(failed)


if __name__ == "__main__":
    main()
