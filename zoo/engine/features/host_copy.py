"""Copy tensors from a GPU while it computes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

# Page-locked memory is not given back, so that larger tensors are copied to any other.
MAX_PINNED = 256 << 20


class HostCopy:
    """A copy of tensors on the CPU; of those on a GPU it is complete only after `wait`.

    Args:
        tensors: by name, on one device; those on the CPU are not copied.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._copies: dict[str, Tensor] = {}
        self._copied: torch.cuda.Event | None = None
        for name, tensor in tensors.items():
            if not tensor.is_cuda or tensor.nbytes > MAX_PINNED:
                self._copies[name] = tensor.cpu()
                continue
            self._copies[name] = torch.empty_like(tensor, device="cpu", pin_memory=True)
            self._copies[name].copy_(tensor, non_blocking=True)
            # Blocking: waiting would otherwise use a core, on which images are read.
            copied = torch.cuda.Event(blocking=True)
            self._copied = torch.cuda.current_stream(tensor.device).record_event(copied)

    def wait(self) -> dict[str, Tensor]:
        """Return the copies, when they are complete."""
        if self._copied is not None:
            self._copied.synchronize()
        return self._copies
