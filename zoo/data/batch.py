"""A batch of samples, and its passage between processes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from multiprocessing.connection import Connection

import torch
from torch import Tensor

from zoo.data.dataset import BadImage
from zoo.errors import DataError


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


class PendingBatch:
    """A batch that is read when it is first used, by the thread that uses it.

    Args:
        read: reads it.
    """

    def __init__(self, read: Callable[[], Batch]) -> None:
        self._read = read

    @cached_property
    def batch(self) -> Batch:
        """The batch."""
        return self._read()


def concatenate(parts: Iterable[Batch], size: int, pin_memory: bool = False) -> Batch:
    """Combine parts to a batch; they are copied before the next is taken.

    Args:
        parts: at least one.
        size: number of samples of all parts, bad images included.
        pin_memory: whether the batch is in page-locked memory.

    Raises:
        DataError: some have bytes and others floats.
    """
    taken: list[Batch] = []
    images: Tensor | None = None
    count = 0
    for part in parts:
        inputs = part.inputs.permute(0, 2, 3, 1)
        if images is None and (len(part) or size == 0):
            shape = (size, *inputs.shape[1:])
            images = torch.empty(shape, dtype=inputs.dtype, pin_memory=pin_memory)
        if images is not None and len(part):
            common_dtype((images, inputs))  # raises where they differ
            # Not by torch, whose threads would wait for one another, and use cores that read.
            images.numpy()[count : count + len(part)] = inputs.numpy()
        count += len(part)
        taken.append(part)
    whole = taken[0].inputs if images is None else images[:count].permute(0, 3, 1, 2)
    filled = [part for part in taken if len(part)] or taken[:1]
    batch = Batch(
        whole,
        torch.cat([part.targets for part in filled]),
        torch.cat([part.indices for part in filled]),
        tuple(each for part in taken for each in part.bad),
        tuple(each for part in taken for each in part.digests),
        tuple(each for part in taken for each in part.incomplete),
    )
    return batch.pin_memory() if pin_memory else batch


def send_batch(connection: Connection, batch: Batch, memory: Tensor | None = None) -> None:
    """Send a batch to another process: its tensors as bytes.

    Args:
        connection: a pipe.
        batch: to send.
        memory: that both share; images at its start, as `images_in` returns them, are not sent.
    """
    tensors = (batch.inputs.permute(0, 2, 3, 1), batch.targets, batch.indices)
    shapes = [(tensor.dtype, tuple(tensor.shape)) for tensor in tensors]
    shared = memory is not None and _address(tensors[0]) == _address(memory)
    connection.send((shapes, (batch.bad, batch.digests, batch.incomplete), shared))
    for tensor in tensors[shared:]:
        if tensor.numel():
            connection.send_bytes(_memory(tensor.contiguous()))


def receive_batch(connection: Connection, memory: Tensor | None = None) -> Batch:
    """Receive a batch that `send_batch` sent; its images may be in the shared memory.

    Raises:
        EOFError, OSError: the sender has closed the pipe.
    """
    shapes, others, shared = connection.recv()
    tensors: list[Tensor] = []
    for dtype, shape in shapes:
        if shared and not tensors:
            tensors.append(images_in(memory, dtype, shape))
            continue
        tensors.append(torch.empty(shape, dtype=dtype))
        if tensors[-1].numel():
            connection.recv_bytes_into(_memory(tensors[-1]))
    images, targets, indices = tensors
    return Batch(images.permute(0, 3, 1, 2), targets, indices, *others)


def common_dtype(images: Iterable[Tensor]) -> torch.dtype:
    """Return the dtype of the images of a batch; uint8 without any.

    Raises:
        DataError: they have several.
    """
    dtypes = {each.dtype for each in images}
    if len(dtypes) > 1:
        message = "a batch has images and tensors of floats, which are normalized already"
        raise DataError(message, "return one kind from the Dataset")
    return dtypes.pop() if dtypes else torch.uint8


def images_in(memory: Tensor | None, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    """Return the start of memory as a tensor; a new one where it does not fit, or for None."""
    size = math.prod(shape) * dtype.itemsize
    if memory is None or size > len(memory):
        return torch.empty(shape, dtype=dtype)
    return memory[:size].view(dtype).view(shape)


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _memory(tensor: Tensor) -> memoryview:
    """Return the memory of a contiguous tensor on the CPU, whatever its dtype."""
    return tensor.detach().flatten().view(torch.uint8).numpy().data
