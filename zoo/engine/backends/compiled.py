"""The engine `compile`: the network compiled by `torch.compile`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from zoo.data.transforms import normalize
from zoo.engine.backends.body import mode_of
from zoo.engine.backends.eager import TorchEngine
from zoo.engine.backends.engine import Inputs
from zoo.engine.runtime.device import autocast
from zoo.engine.runtime.head_hooks import first_input
from zoo.engine.runtime.network import Network
from zoo.errors import EnvironmentProblem, one_line
from zoo.models.plugin_errors import plugin_errors


class CompileEngine(TorchEngine):
    """Runs the compiled network, and captures the inputs of its heads."""

    name = "compile"
    converts = True

    def __init__(self, network: Network, batch: int, training: bool = False) -> None:
        super().__init__(network, batch, training)
        self._compiled: Any = None

    @classmethod
    def check(cls, device: torch.device) -> None:
        """Check that there is a C++ compiler, for a network on the CPU."""
        if device.type != "cpu":
            return
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        try:
            get_cpp_compiler()
        except InvalidCxxCompiler as error:
            message = f"--engine compile needs a C++ compiler: {one_line(error)}"
            raise EnvironmentProblem(message, "install g++, or give --engine torch") from error

    def load(self, write: bool = True) -> None:
        """Prepare to compile; the first batch does."""
        if self._compiled is None:
            # Weights become constants of the compiled network, which is for inference only.
            options: Any = {"freezing": True} if self.network.device.type == "cpu" else {}
            self._compiled = torch.compile(self.network.module, options=options)

    def compute(self, images: Tensor) -> Inputs:
        """Return the inputs of the heads by path."""
        self.load()
        network, count = self.network, len(images)
        network.forwards += count
        if count < self.batch:
            blank = images.new_zeros(self.batch - count, *images.shape[1:])
            images = torch.cat([images, blank])
        pixels = images.to(network.device, non_blocking=True)
        if pixels.dtype == torch.uint8:
            pixels = normalize(pixels, network.preprocess)
        pixels = pixels.contiguous(memory_format=network.memory_format)
        with (
            network.lock,
            mode_of(network.module, self.training),
            capturing(network.module, network.paths) as heads,
            # Without the hooks that have heads compute in float32, which dynamo does not trace:
            # heads are computed apart, of inputs that are captured before.
            autocast(network.device, network.precision),
            plugin_errors("torch.compile fails on the network"),
        ):
            self._compiled(pixels)
            inputs = {path: heads[path].input for path in network.paths}
        return {path: each[:count] for path, each in inputs.items() if each is not None}


@contextlib.contextmanager
def capturing(module: nn.Module, paths: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Capture the input of each head in the block, as its attribute `input`.

    By its class and not by a hook: dynamo does not check hooks, and would run what it has compiled
    of an equal network without any.

    Args:
        module: the network.
        paths: module paths of the heads.

    Yields:
        The heads by path; `input` is None of those that have not run.
    """
    heads: dict[str, Any] = {path: module.get_submodule(path) for path in paths}
    kinds: dict[str, Any] = {path: type(head) for path, head in heads.items()}
    try:
        for path, head in heads.items():
            head.__class__ = capturing_class(kinds[path])
            head.input = None
        yield heads
    finally:
        for path, kind in kinds.items():
            heads[path].__dict__.pop("input", None)
            heads[path].__class__ = kind


@cache
def capturing_class(kind: Any) -> Any:
    """Return a subclass of a head's class that captures the input."""

    class Capturing(kind):
        def forward(self, *args: Any, **named: Any) -> Any:
            self.input = first_input(args, named).detach()
            return super().forward(*args, **named)

    return Capturing
