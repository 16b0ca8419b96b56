"""A network with its preprocessing as one graph of torch, for the formats that contain both."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from zoo.data.exportable import ExportablePreprocess
from zoo.inference.export.exporter import Source, conversion_errors
from zoo.tasks.base import Outputs

INPUT = "images"
# Sides of the example that a graph is traced with, each beyond that of the network's input.
BEYOND = 37, 101


class ExportableNetwork(nn.Module):
    """Predicts images of one size, as `zoo predict` does.

    Args:
        source: the network.
        branching: as for `ExportablePreprocess`.
    """

    def __init__(self, source: Source, branching: bool = True) -> None:
        super().__init__()
        network, card = source.model.network, source.model.card
        self.preprocess = ExportablePreprocess(network.preprocess, branching)
        self.network = network.module
        self._task, self._heads = network.task, network.heads
        self._previous = network.previous_outputs
        self._temperature = card.temperature if card is not None else None

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Return the outputs of the task by name.

        Args:
            images: `[images, height, width, 3]` uint8.
        """
        pixels, placement = self.preprocess(images)
        output = self.network(pixels)
        main = self._task.read_output(output, self._heads, False, self._previous).main
        if self._temperature is not None:
            main = main / self._temperature
        return self._task.export_outputs(Outputs(main), placement)


class Graph(NamedTuple):
    """A network as `torch.export` traced it.

    Args:
        program: a `torch.export.ExportedProgram` of an input `images`.
        outputs: names.
        any_batch: whether it takes any number of images of one size; else one.
        reason: why it takes one image only; empty otherwise.
    """

    program: Any
    outputs: tuple[str, ...]
    any_batch: bool
    reason: str = ""

    def describe(self) -> str:
        """Return what it takes and returns, as a line of text."""
        taken = "any number of images of one size"
        if not self.any_batch:
            taken = f"one image at a time, because more cannot be traced ({self.reason})"
        return f"takes {taken}, returns {', '.join(self.outputs)}"


def trace(source: Source, branching: bool = True) -> Graph:
    """Trace a network for images of any size, in batches of any size where that can be.

    Args:
        source: the network.
        branching: as for `ExportablePreprocess`.

    Raises:
        BrokenBackbone: torch cannot trace it; states why.
        UsageError: its input is neither RGB nor grey.
    """
    module = ExportableNetwork(source, branching).eval()
    what = f"torch.export cannot trace {source.model.backbone}"
    hint = "--format timm writes its weights, and --debug shows where it stops"
    with quiet(), torch.no_grad():
        names = tuple(module(_example(source, 1)))
        try:
            with conversion_errors(what, hint):
                return Graph(_trace(module, _example(source, 2), True), names, True)
        except Exception as error:
            reason = getattr(error, "message", str(error)).removeprefix(f"{what}: ")
        with conversion_errors(what, hint):
            return Graph(_trace(module, _example(source, 1), False), names, False, reason)


def _trace(module: nn.Module, example: Tensor, any_batch: bool) -> Any:
    any_size = torch.export.Dim.DYNAMIC
    sizes: dict[int, Any] = {1: any_size, 2: any_size}
    if any_batch:
        sizes[0] = any_size
    return torch.export.export(module, (example,), dynamic_shapes={INPUT: sizes}, strict=False)


def _example(source: Source, count: int) -> Tensor:
    preprocess = source.model.preprocess
    size = preprocess.height + BEYOND[0], preprocess.width + BEYOND[1]
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (count, *size, 3), dtype=torch.uint8, generator=generator)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress what torch prints and logs of networks that are as their authors wrote them."""
    before = logging.root.manager.disable
    ignored = io.StringIO()
    with (
        warnings.catch_warnings(),
        contextlib.redirect_stdout(ignored),
        contextlib.redirect_stderr(ignored),
    ):
        warnings.simplefilter("ignore")
        logging.disable(logging.ERROR)
        try:
            yield
        finally:
            logging.disable(before)
