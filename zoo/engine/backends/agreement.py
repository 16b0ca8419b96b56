"""Whether an engine agrees with torch on a batch, within the tolerance of a precision."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

from zoo.engine.backends.eager import TorchEngine
from zoo.engine.backends.engine import Engine
from zoo.engine.runtime.network import Network

# In float32 operations in another order differ by some units of 2**-24 in each layer: 1e-6 to 1e-5
# in networks of a hundred layers. A wrong operation differs by more than a hundredth.
FP32 = 1e-4
# In bfloat16 an engine may be as far from float32 as twice torch's own bfloat16, and the rounding
# of the result, 2**-8, since its significand has 8 bits.
BF16_FACTOR, BF16_ROUNDING = 2.0, 2.0**-8


@torch.no_grad()
def disagreement(engine: Engine, images: Tensor) -> str | None:
    """Return by how much an engine differs from torch, beyond the tolerance; None if it agrees.

    Errors are those of the inputs of each head: the norm of the difference from torch in float32,
    relative to the norm of that.

    Args:
        engine: to check.
        images: a batch, of different images.
    """
    network = engine.network
    reference = TorchEngine(network, engine.batch, engine.training)
    forwards = network.forwards
    try:
        own = engine.compute(images)
        with _in_fp32(network):
            exact = reference.compute(images)
        rounded = exact if network.precision == "fp32" else reference.compute(images)
    finally:
        network.forwards = forwards
    if own.keys() != exact.keys():
        return "it does not compute the inputs of all heads"
    for path, values in exact.items():
        if own[path].shape != values.shape or own[path].dtype != rounded[path].dtype:
            return f"the input of {path} has another shape"
        error = _error(own[path], values)
        limit = FP32
        if network.precision != "fp32":
            limit = BF16_FACTOR * _error(rounded[path], values) + BF16_ROUNDING
        if not error <= limit:
            return f"the input of {path} differs by {error:.2g} from torch, allowed are {limit:.2g}"
    return None


def _error(values: Tensor, exact: Tensor) -> float:
    exact = exact.double()
    norm = float(exact.norm())
    difference = float((values.double() - exact).norm())
    return difference if norm == 0 else difference / norm


@contextlib.contextmanager
def _in_fp32(network: Network) -> Iterator[None]:
    precision, network.precision = network.precision, "fp32"
    try:
        yield
    finally:
        network.precision = precision
