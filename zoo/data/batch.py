"""A batch of samples, and its passage through a pipe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from multiprocessing.connection import Connection

import torch
from torch import Tensor

from zoo.data.dataset import BadImage


@dataclass(frozen=True)
class Batch:
    """A batch of samples.

    Args:
        inputs: `[n, channels, height, width]` in channels-last memory format: uint8, or floats that
            are normalized already.
        targets: `[n, ...]`, as the task collates them.
        indices: `[n]`, int64: each sample's position in the split.
        bad: unreadable images, which are not in the tensors; `n` is 0 where all are.
        digests: sha256 of each image's content; empty unless requested.
        incomplete: paths of files that lack their last bytes.
    """

    inputs: Tensor
    targets: Tensor
    indices: Tensor
    bad: tuple[BadImage, ...] = ()
    digests: tuple[bytes, ...] = ()
    incomplete: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.indices)

    def pin_memory(self) -> Batch:
        """Return the batch in page-locked memory."""
        return replace(
            self,
            inputs=self.inputs.pin_memory(),
            targets=self.targets.pin_memory(),
            indices=self.indices.pin_memory(),
        )


def send_batch(connection: Connection, batch: Batch) -> None:
    """Send a batch through a pipe: its tensors as bytes, without shared memory."""
    tensors = (batch.inputs.permute(0, 2, 3, 1), batch.targets, batch.indices)
    shapes = [(tensor.dtype, tuple(tensor.shape)) for tensor in tensors]
    connection.send((shapes, (batch.bad, batch.digests, batch.incomplete)))
    for tensor in tensors:
        if tensor.numel():
            connection.send_bytes(_memory(tensor.contiguous()))


def receive_batch(connection: Connection) -> Batch:
    """Receive a batch that `send_batch` sent.

    Raises:
        EOFError, OSError: the sender has closed the pipe.
    """
    shapes, others = connection.recv()
    tensors = [torch.empty(shape, dtype=dtype) for dtype, shape in shapes]
    for tensor in tensors:
        if tensor.numel():
            connection.recv_bytes_into(_memory(tensor))
    images, targets, indices = tensors
    return Batch(images.permute(0, 3, 1, 2), targets, indices, *others)


def _memory(tensor: Tensor) -> memoryview:
    """Return the memory of a contiguous tensor on the CPU, whatever its dtype."""
    return tensor.detach().flatten().view(torch.uint8).numpy().data
