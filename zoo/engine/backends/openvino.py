"""The engine `openvino`: the body of a network, converted for OpenVINO's CPU plugin.

Conversion takes seconds, so its result is cached; compiling it takes tenths of a second, and is
repeated. OpenVINO's own cache of compiled networks would save 0.1 s of resnet18, and is not used.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import warnings
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.data.threads import read_in_threads
from zoo.engine.backends import openvino_model
from zoo.engine.backends.body import Body, describe_body, mode_of
from zoo.engine.backends.conversions import Conversion
from zoo.engine.backends.engine import Engine, Inputs, Item
from zoo.engine.backends.openvino_model import (
    compile_network,
    computes_in,
    core,
    import_openvino,
)
from zoo.engine.runtime.allocator import without_retaining
from zoo.engine.runtime.head_hooks import HeadHooks
from zoo.engine.runtime.network import Network
from zoo.engine.runtime.pieces import pieces
from zoo.errors import BrokenBackbone, EnvironmentProblem, UsageError, one_line
from zoo.files import library_versions
from zoo.models.plugin_errors import plugin_errors

MODEL, TENSORS = "model.xml", "model.bin"
# Incremented when converted networks change.
FORMAT = 1
# Images that a network is traced with: two, since a trace with one may make the size constant.
TRACED = 2
# Seconds that a trial in another process may take.
TRIAL_SECONDS = 900.0


class OpenVINOEngine(Engine):
    """Computes the inputs of the heads by OpenVINO, on several batches at once.

    Each of as many threads as cores reads a batch, computes on it in a stream of OpenVINO's, and
    takes the next, so no core waits for another while there are batches, and another program slows
    down only what it runs beside. Which images form a batch does not depend on the threads.
    """

    name = "openvino"
    converts = True
    threaded = True

    def __init__(self, network: Network, batch: int, training: bool = False) -> None:
        super().__init__(network, batch, training)
        self._converted: Any = None
        self._compiled: dict[torch.dtype, Any] = {}
        self._heads: list[tuple[str, torch.dtype]] = []
        self._free: defaultdict[torch.dtype, deque[Any]] = defaultdict(deque)
        self._compiling = threading.Lock()

    @staticmethod
    def version() -> str | None:
        """Return OpenVINO's version; None where it is not installed."""
        try:
            return version("openvino")
        except PackageNotFoundError:
            return None

    @classmethod
    def check(cls, device: torch.device) -> None:
        """Check that it is installed, and that the network is on the CPU."""
        if device.type != "cpu":
            message = f"--engine openvino computes on the CPU, and the device is {device}"
            raise UsageError(message, "give --device cpu, or --engine torch")
        if cls.version() is None:
            hint = "pip install 'zoo-registry[openvino]'"
            raise EnvironmentProblem("--engine openvino: OpenVINO is not installed", hint)
        _check_fork()

    @cached_property
    def conversion(self) -> Conversion:
        """The converted network in the cache."""
        body = describe_body(self.network, self.training)
        versions = library_versions("openvino", "torch", "torchvision", "timm")
        facts = {"format": FORMAT, **body, "versions": versions}
        return Conversion(facts, {"backbone": body["backbone"], "engine": self.name})

    def is_converted(self) -> bool:
        """Whether the converted network is in the cache."""
        return self.conversion.exists()

    def checks(self) -> dict[str, str | None]:
        """Return the results of earlier checks, also of other processes."""
        return {**self.conversion.checks(), **self._checks}

    def record_check(self, name: str, reason: str | None) -> None:
        """Record the result of a check beside the converted network."""
        super().record_check(name, reason)
        self.conversion.record_check(name, reason)

    def load(self, write: bool = True) -> None:
        """Read the converted network from the cache, or convert it.

        Raises:
            BrokenBackbone: it cannot be converted.
            EnvironmentProblem: OpenVINO does not compute in the precision here, or in this process.
        """
        _check_fork()
        precision = self.network.precision
        if not computes_in(precision):
            message = f"--engine openvino does not compute in {precision} on this CPU"
            raise EnvironmentProblem(message, "give --precision fp32, or --engine torch")
        if self._converted is not None:
            return
        self._heads = self._reference()
        if self.conversion.verified():
            self._converted = core().read_model(self.conversion.path / MODEL)
            return
        self._converted = self._convert()
        if write:
            self.conversion.write(self._save, (MODEL, TENSORS))
            for name, reason in self._checks.items():  # made before it was there
                self.conversion.record_check(name, reason)

    def _save(self, folder: Path) -> None:
        """Write the converted network to a folder.

        Raises:
            EnvironmentProblem: it cannot be written; OpenVINO does not report why.
        """
        path = folder / MODEL
        try:
            import_openvino().save_model(self._converted, path, compress_to_fp16=False)
        except RuntimeError as error:
            message = f"cannot write {path}: {one_line(error)}"
            hint = "check the free space, or give --engine torch"
            raise EnvironmentProblem(message, hint) from error

    def _shape(self) -> tuple[int, int, int]:
        preprocess = self.network.preprocess
        return preprocess.channels, preprocess.height, preprocess.width

    def _reference(self) -> list[tuple[str, torch.dtype]]:
        """Return the heads that run, and the dtypes of their inputs in torch."""
        network, forwards = self.network, self.network.forwards
        images = torch.zeros((TRACED, *self._shape()), dtype=torch.uint8)
        with (
            network.lock,
            mode_of(network.module, self.training),
            HeadHooks(network.module, network.paths) as hooks,
        ):
            network.forward(images, self.training)
        network.forwards = forwards
        return [(p, hooks.inputs[p].dtype) for p in network.paths if p in hooks.inputs]

    def _convert(self) -> Any:
        """Trace the body, and convert it.

        Raises:
            BrokenBackbone: it cannot be traced or converted.
        """
        network, shape = self.network, self._shape()
        example = torch.randn((TRACED, *shape), generator=torch.Generator().manual_seed(0))
        body, library = Body(network), import_openvino()
        with (
            mode_of(network.module, self.training),
            warnings.catch_warnings(),
            contextlib.redirect_stdout(sys.stderr),
            plugin_errors("OpenVINO cannot convert the network"),
        ):
            warnings.simplefilter("ignore")
            try:
                traced = torch.jit.trace(body, example, check_trace=False, strict=False)
            except Exception:
                dynamic = {"images": {0: torch.export.Dim.AUTO}}
                traced = torch.export.export(body, (example,), dynamic_shapes=dynamic, strict=False)
                return library.convert_model(traced)
            return library.convert_model(traced, example_input=example, input=[(-1, *shape)])

    def _compile(self, dtype: torch.dtype) -> Any:
        """Compile for batches of bytes, normalized by OpenVINO, or of normalized floats."""
        settings = self._settings()
        return compile_network(self._converted, bytes_=dtype == torch.uint8, **settings)

    def _settings(self) -> dict[str, Any]:
        """Return the settings of compiling."""
        preprocess = self.network.preprocess
        return {
            "shape": [self.batch, *self._shape()],
            "mean": list(preprocess.mean),
            "std": list(preprocess.std),
            "precision": self.network.precision,
            "threads": torch.get_num_threads(),
        }

    def crash(self) -> str | None:
        """Return why another process fails that computes on noise by it; None where it does not.

        Raises:
            EnvironmentProblem: its input cannot be written.
        """
        self.load()
        with contextlib.ExitStack() as stack:
            path = self.conversion.path / MODEL
            if not self.conversion.exists():
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="zoo-")))
                path = folder / MODEL
                self._save(folder)
            # Without the script's folder on the path, in which this module is named as the library.
            command = [sys.executable, "-P", openvino_model.__file__, str(path)]
            command.append(json.dumps(self._settings()))
            try:
                done = subprocess.run(
                    command,
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    errors="replace",
                    timeout=TRIAL_SECONDS,
                )
            except subprocess.TimeoutExpired:
                return f"OpenVINO needs more than {TRIAL_SECONDS:g} s for a batch"
        if done.returncode < 0:
            return f"OpenVINO crashes on it, by signal {-done.returncode}"
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
            return f"OpenVINO fails on it: {last[0][:200]}"
        return None

    def _request(self, dtype: torch.dtype) -> Any:
        """Return a request that is not in use."""
        with contextlib.suppress(IndexError):
            return self._free[dtype].pop()
        with self._compiling:
            if dtype not in self._compiled:
                with plugin_errors("OpenVINO cannot compile the network"):
                    self._compiled[dtype] = self._compile(dtype)
        return self._compiled[dtype].create_infer_request()

    def accepts(self, images: Tensor) -> bool:
        """Whether images have the size that the network was converted for."""
        return tuple(images.shape[1:]) == self._shape() and len(images) <= self.batch

    def compute(self, images: Tensor) -> Inputs:
        """Return the inputs of the heads by path."""
        with self.network.lock:
            self.load()
        self.network.forwards += len(images)
        with without_retaining():
            return self._infer(images)

    def stream(
        self, items: Iterable[Item], images: Callable[[Item], Tensor | None]
    ) -> Generator[tuple[Item, Inputs | None]]:
        """Yield each item with the inputs of the heads; the next ones are computed meanwhile."""

        def compute(item: Item) -> tuple[Item, int, Inputs | None]:
            pixels = images(item)
            return (item, 0, None) if pixels is None else (item, len(pixels), self._infer(pixels))

        # Here, as the caller may have the lock, for which the threads would wait.
        with self.network.lock:
            self.load()
        threads = torch.get_num_threads()
        computed = read_in_threads(compute, ([item] for item in items), threads, 2 * threads)
        with without_retaining(), contextlib.closing(computed):
            for ((item, count, inputs),) in computed:
                self.network.forwards += count
                yield item, inputs

    def _infer(self, images: Tensor) -> Inputs:
        """Compute on a batch, padded with blank images."""
        dtype = torch.uint8 if images.dtype == torch.uint8 else torch.float32
        count = len(images)
        if count < self.batch:
            blank = images.new_zeros(self.batch - count, *images.shape[1:])
            images = torch.cat([images, blank])
        if dtype == torch.uint8:
            images = images.permute(0, 2, 3, 1)
        pixels = images.to(dtype).contiguous().numpy()
        request = self._request(dtype)
        request.set_input_tensor(import_openvino().Tensor(pixels, shared_memory=True))
        try:
            request.start_async()
            request.wait()
        except RuntimeError as error:
            raise BrokenBackbone(f"OpenVINO fails on the network: {one_line(error)}") from error
        inputs = {
            path: _copy(torch.from_numpy(request.get_output_tensor(index).data)[:count], own)
            for index, (path, own) in enumerate(self._heads)
        }
        self._free[dtype].append(request)
        return inputs


def _check_fork() -> None:
    """Check that OpenVINO's threads are in this process.

    Raises:
        EnvironmentProblem: they are in the one that it was forked from.
    """
    if openvino_model.stopped_by_fork():
        message = "--engine openvino: this process was forked from one that used OpenVINO"
        raise EnvironmentProblem(message, "spawn it, or give --engine torch")


def _copy(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return a copy in another dtype, in the calling thread alone."""
    copy = torch.empty(values.shape, dtype=dtype)
    for part, given in zip(pieces(copy), pieces(values), strict=True):
        part.copy_(given)
    return copy
