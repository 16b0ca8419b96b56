"""Operate on tensors in the calling thread alone, where other threads have work of their own."""

from __future__ import annotations

from torch import Tensor

# For more values torch starts threads. They then wait for more work, on cores that others need:
# 1 ms of CPU time per image where batches of 32 were copied while OpenVINO computed.
GRAIN = 32768


def pieces(tensor: Tensor) -> tuple[Tensor, ...]:
    """Return the values of a tensor, `[values]`, in parts for which torch starts no threads."""
    parts: tuple[Tensor, ...] = tensor.flatten().split(GRAIN)
    return parts
