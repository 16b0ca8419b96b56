"""Measure the pass through a frozen network against an earlier version of zoo, and the floor.

    git worktree add /tmp/earlier 0773531
    uv run python -m benchmarks.the_pass --earlier /tmp/earlier [--rounds 5] [--images 640]

All compute the inputs of the head for the same JPEGs of 500 x 375 pixels, on all cores. zoo stores
them, as a training or `zoo embed` does, into an empty cache. The floor is the plain program that
reads a batch in threads, by torchvision's decoder and antialiased resize of bytes, and computes on
it by OpenVINO in bfloat16, in turns; it digests, checks and stores nothing. Loading, converting and
compiling come before. Each side has its own process; rounds are interleaved, after a
warm-up.
Prints a table and writes `the_pass.json`: medians of images per second and of milliseconds of CPU
time per image, and of the ratio to the floor in each round.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.harness.bench import PLUGINS, ROOT, load_results, write_results
from benchmarks.harness.served import ask, serving
from benchmarks.images import WORK, write_images

RESULTS = Path(__file__).with_suffix(".json")
NETWORKS = (
    "torchvision/resnet18",
    "efficientnet_lite/lite0",
    "timm/vit_tiny_patch16_224",
    "torchvision/mobilenet_v2",
)
# Programs run what each line of their stdin names, and print seconds and CPU seconds of it.
SERVE = """
for line in sys.stdin:
    began = time.perf_counter(), time.process_time()
    runs[line.strip()]()
    print(time.perf_counter() - began[0], time.process_time() - began[1], flush=True)
"""
# In either version of zoo.
ZOO = """
import os, shutil, sys, time
from pathlib import Path
import torch
import zoo
from zoo.data.all_images import AllImages
from zoo.data.dataset import SampleTransform
from zoo.data.loader import load_batches
from zoo.data.split import FileSplit
from zoo.engine.runtime.allocator import retain_freed_memory
from zoo.engine.runtime.device import resolve_precision
from zoo.engine.runtime.network import Network
from zoo.inference.embed import embedding
from zoo.inference.predictor import Predictor
from zoo.models.provenance import provenance_of
from zoo.registry.registry import load_registry
from zoo.tasks.base import Schema, load_task
from zoo.terminal import Progress

name, root, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
paths = sorted(str(path.relative_to(root)) for path in root.rglob("*.jpg"))
paths = tuple(paths[:: len(paths) // count][:count])
split = FileSplit("all", root, paths, (0,) * count)
torch.manual_seed(0)
module = zoo.get(name).build(classes=10, weights=None)
backbone, cpu = provenance_of(module).backbone, torch.device("cpu")
task = load_task(load_registry().task(backbone.task))
precision, _ = resolve_precision("auto", cpu)
network = Network(module, backbone.heads, backbone.preprocess, cpu, precision, task)
model = Predictor(network, Schema(), backbone.id)
try:
    from zoo.engine.backends.choice import engine_of
    from zoo.models.freeze import freeze
except ImportError:
    pass
else:
    freeze(module)
    engine_of(network, "openvino", 32).load()  # so that `auto` takes it for any number of images


def run():
    shutil.rmtree(Path(os.environ["XDG_CACHE_HOME"]) / "zoo/features", ignore_errors=True)
    network.forwards = 0
    with embedding(model, AllImages("all", (split,), ()), Progress(quiet=True), 1 << 40) as done:
        assert network.forwards >= len(done) == count


def read():
    transform, threads = SampleTransform(backbone.preprocess), torch.get_num_threads()
    batches = load_batches(
        split, transform, range(count), 32, threads=threads, ahead=0, digest=True
    )
    assert sum(map(len, batches)) == count


runs = {"pass": run, "read": read}
with retain_freed_memory():  # as the command line does
"""
FLOOR = """
import sys, time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
import openvino
import torch
from openvino.preprocess import PrePostProcessor
from torchvision.io import decode_jpeg, ImageReadMode
from torchvision.transforms.v2 import functional as vision
import zoo

name, root, count = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
threads = torch.get_num_threads()
paths = sorted(root.rglob("*.jpg"))
paths = paths[:: len(paths) // count][:count]
torch.manual_seed(0)
backbone = zoo.get(name)
module = backbone.build(classes=10, weights=None).eval()
preprocess = backbone.preprocess
parent, _, leaf = backbone.heads[0].path.replace("[", ".").replace("]", "").rpartition(".")
setattr(module.get_submodule(parent), leaf, torch.nn.Identity())
example = torch.zeros(32, 3, preprocess.height, preprocess.width)
network = openvino.convert_model(module, example_input=example, input=[example.shape])
steps = PrePostProcessor(network)
steps.input().tensor().set_element_type(openvino.Type.u8).set_layout(openvino.Layout("NHWC"))
steps.input().model().set_layout(openvino.Layout("NCHW"))
bytes_ = steps.input().preprocess().convert_element_type(openvino.Type.f32)
bytes_.mean([255 * value for value in preprocess.mean])
bytes_.scale([255 * value for value in preprocess.std])
settings = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": threads}
compiled = openvino.Core().compile_model(steps.build(), "CPU", settings)
interpolation = vision.InterpolationMode[preprocess.interpolation.upper()]
size = [preprocess.height, preprocess.width]
resize = [preprocess.resize or min(size)]
pool = ThreadPoolExecutor(threads)
torch.set_num_threads(1)  # each thread of the pool resizes an image by itself


def prepare(path):
    content = torch.frombuffer(bytearray(path.read_bytes()), dtype=torch.uint8)
    pixels = decode_jpeg(content, ImageReadMode.RGB)
    pixels = vision.resize(pixels, resize, interpolation, antialias=True)
    return vision.center_crop(pixels, size).permute(1, 2, 0).numpy()


def batches():
    for first in range(0, count, 32):
        images = list(pool.map(prepare, paths[first : first + 32]))
        images += [np.zeros_like(images[0])] * (32 - len(images))
        yield np.stack(images)


def run():
    features = [compiled(batch)[0] for batch in batches()]
    assert 32 * len(features) >= count


def read():
    for batch in batches():
        pass


prepared = list(batches())


def forward():
    for batch in prepared:
        compiled(batch)


runs = {"pass": run, "read": read, "forward": forward}
if True:
"""


def indented(text: str) -> str:
    """Return a block of a program inside of another."""
    return "".join(f"    {line}\n" for line in text.strip().splitlines())


def measure(name: str, versions: dict[str, Path], images: Path, count: int, rounds: int) -> Any:
    """Time all sides on a network, interleaved; return medians."""
    with ExitStack() as stack:
        processes = {}
        for side, folder in {**versions, "floor": ROOT}.items():
            cache = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="zoo-pass-")))
            program = FLOOR if side == "floor" else ZOO
            arguments = (name, str(images), str(count))
            served = serving(
                program + indented(SERVE),
                folder,
                *arguments,
                XDG_CACHE_HOME=str(cache),
                ZOO_PLUGINS=PLUGINS,
            )
            processes[side] = stack.enter_context(served)
        asked = [(side, what) for what in ("pass", "read") for side in processes]
        asked += [("floor", "forward")]
        times: dict[tuple[str, str], list[tuple[float, float]]] = {each: [] for each in asked}
        for number in range(rounds + 1):
            for side, what in asked:
                seconds = ask(processes[side], what)
                if number:  # the first round is a warm-up
                    times[side, what].append(seconds)
    result: dict[str, Any] = {}
    for (side, what), each in times.items():
        rate, cpu = median(count / s for s, _ in each), median(1000 * c / count for _, c in each)
        result.setdefault(what, {})[side] = {
            "images_per_second": round(rate, 1),
            "cpu_ms_per_image": round(cpu, 2),
        }
    for side in versions:
        pairs = list(zip(times["floor", "pass"], times[side, "pass"], strict=True))
        result["pass"][side]["ratio"] = round(median(one[0] / own[0] for one, own in pairs), 3)
        ratio = median(one[1] / own[1] for one, own in pairs)
        result["pass"][side]["cpu_ratio"] = round(ratio, 3)
    return result


def table(results: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a table of rates in images per second."""
    yield "| network | zoo | earlier | floor | zoo / floor | by CPU time | reading, zoo | floor |"
    yield "|---|---|---|---|---|---|---|---|"
    for name, each in results["networks"].items():
        rates = {side: one["images_per_second"] for side, one in each["pass"].items()}
        now = each["pass"]["now"]
        read = {side: one["images_per_second"] for side, one in each["read"].items()}
        cells = [name, rates["now"], rates.get("earlier", ""), rates["floor"], now["ratio"]]
        cells += [now["cpu_ratio"], read["now"], read["floor"]]
        yield f"| {' | '.join(map(str, cells))} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--earlier", type=Path, help="folder of the earlier version")
    parser.add_argument("--work", type=Path, default=WORK, help="folder for generated files")
    parser.add_argument("--package", type=Path, help="file of the Debian package of the drawings")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=640)
    parser.add_argument("--network", action="append", help="one of them; all if omitted")
    parser.add_argument("--out", type=Path, default=RESULTS, help="file of results")
    options = parser.parse_args()
    images = write_images(options.work.resolve(), package=options.package)
    versions = {"now": ROOT}
    if options.earlier:
        versions["earlier"] = options.earlier.resolve()
    settings = {"images": options.images, "rounds": options.rounds}
    results = load_results(options.out, True, {"networks": {}}, **settings)
    for name in options.network or NETWORKS:
        results["networks"][name] = measure(name, versions, images, options.images, options.rounds)
        print(name, results["networks"][name], flush=True)
        write_results(results, options.out)
    print("\n".join(table(results)))


if __name__ == "__main__":
    main()
