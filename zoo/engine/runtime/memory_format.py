"""The memory format of a network, and the layers whose gradient fails in channels last."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

MEMORY_FORMATS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def resolve_memory_format(choice: str, device: torch.device) -> tuple[str, str]:
    """Resolve a memory format on a device, and return it with the reason for it.

    Convolutions in bfloat16 are fastest with channels last, on the CPU (oneDNN) and on a GPU
    (cuDNN's tensor cores). Networks without convolutions are not affected.

    Args:
        choice: `auto`, or a key of `MEMORY_FORMATS`.
        device: to compute on.
    """
    if choice != "auto":
        return choice, "as given"
    if device.type in ("cpu", "cuda"):
        return "channels_last", "auto: quickest for convolutions"
    return "contiguous", "auto: supported on every device"


def contiguous_layers(module: nn.Module, device: torch.device) -> dict[str, nn.Conv2d]:
    """Return the layers, by name, that must compute in contiguous format on a device.

    On the CPU, the gradient of the weights of a strided 1x1 convolution of fewer channels than a
    vector register has lanes is computed by oneDNN's `jit_1x1`, which in channels last writes past
    its buffer: `docs/channels-last.md`.
    """
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return {}
    lanes = _lanes()
    layers = module.named_modules()
    return {name: x for name, x in layers if isinstance(x, nn.Conv2d) and _fails(x, lanes)}


def _lanes() -> int:
    """Return the number of floats in a vector register of the CPU, as oneDNN uses it."""
    # Private in every torch release so far, and may be renamed; the most lanes are the safe answer.
    supported = getattr(torch.cpu, "_is_avx512_supported", lambda: True)
    return 16 if supported() else 8


def _fails(layer: nn.Conv2d, lanes: int) -> bool:
    strided = tuple(layer.kernel_size) == (1, 1) and tuple(layer.stride) != (1, 1)
    padded = layer.padding not in ("valid", (0, 0))
    return strided and not padded and layer.groups == 1 and 1 < layer.in_channels < lanes


def describe_contiguous(layers: Sequence[str]) -> str:
    """Describe for a plan why layers are contiguous in a network that is channels last."""
    more = f" and {len(layers) - 1} more" if len(layers) > 1 else ""
    return f"contiguous in {layers[0]}{more}, whose gradient writes past its buffer otherwise"


@contextlib.contextmanager
def contiguous_inputs(layers: Sequence[nn.Module]) -> Iterator[None]:
    """Make the inputs of layers contiguous in the block; autograd remembers it for backward.

    torch convolves in channels last if either the input or the weights are.
    """
    handles = [layer.register_forward_pre_hook(_enter, with_kwargs=True) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _enter(_: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, Any]:
    return tuple(map(_contiguous, inputs)), {name: _contiguous(x) for name, x in named.items()}


def _contiguous(value: Any) -> Any:
    return value.contiguous() if isinstance(value, Tensor) else value
