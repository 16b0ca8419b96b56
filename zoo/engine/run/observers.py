"""Telling observers of a training, and keeping the training free of what they do."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.data.schema import Schema
from zoo.data.transforms import denormalize
from zoo.errors import one_line
from zoo.events import Event, FirstBatchRead
from zoo.registry.plugins import PluginHost
from zoo.spec import Preprocess

FIRST_BATCH = "zoo_on_first_batch"


class Observers:
    """The observers of one training.

    A plugin that raises in a hook is named once, with what it raised; `close` says how often.

    Args:
        host: the loaded plugins.
        device: that the training computes on.
        telling: whether they are told; of several processes, only the first one's are.
    """

    def __init__(self, host: PluginHost, device: torch.device, telling: bool = True) -> None:
        self.host = host
        self.telling = telling
        self.device = device
        self.failures: Counter[tuple[str, str]] = Counter()

    def listen(self, hook: str) -> bool:
        """Whether any plugin implements a hook."""
        return self.telling and bool(self.host.observers(hook))

    def tell(self, hook: str, event: Event) -> None:
        """Tell every observer of an event; what one raises is a warning, but for interrupts."""
        for name, call in self.host.observers(hook) if self.telling else ():
            try:
                with undisturbed(self.device):
                    call(event)
            except (Exception, SystemExit) as error:
                self._failed(name, hook, error)

    def _failed(self, name: str, hook: str, error: BaseException) -> None:
        self.failures[name, hook] += 1
        if self.failures[name, hook] == 1:
            self.host.warn(f"plugin {name!r} failed in {hook}: {one_line(error)}")

    def close(self) -> None:
        """Say how often those failed that did so more than once."""
        for (name, hook), times in self.failures.items():
            if times > 1:
                self.host.warn(f"plugin {name!r} failed {times} times in {hook}")
        self.failures.clear()


@contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Put back what a training computes with, whatever is done in between.

    That is: the states of the generators of torch, on the CPU and on the device, of numpy and of
    Python, the gradient and inference modes, the default dtype, the number of threads and the
    current folder.

    Args:
        device: that the training computes on.
    """
    on_cpu = device.type == "cpu"
    grad = torch.is_grad_enabled()
    with ExitStack() as stack:
        devices, kind = ([], "cuda") if on_cpu else ([device], device.type)
        stack.enter_context(torch.random.fork_rng(devices, device_type=kind))
        stack.enter_context(torch.inference_mode(torch.is_inference_mode_enabled()))
        stack.enter_context(torch.set_grad_enabled(grad))
        stack.callback(random.setstate, random.getstate())
        stack.callback(np.random.set_state, np.random.get_state(legacy=False))
        stack.callback(torch.set_default_dtype, torch.get_default_dtype())
        stack.callback(_put_threads_back, torch.get_num_threads())
        with suppress(OSError):  # where the folder is gone there is nothing to go back to
            stack.callback(_go_back, Path.cwd())
        yield


def _put_threads_back(threads: int) -> None:
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)


def _go_back(folder: Path) -> None:
    with suppress(OSError):
        os.chdir(folder)


class FirstBatch:
    """Shows observers the first training batch; where none looks, nothing is made for it.

    Args:
        observers: of the training.
        preprocess: by which floats were normalized.
        schema: what the targets are.
    """

    def __init__(self, observers: Observers, preprocess: Preprocess, schema: Schema) -> None:
        self.observers = observers
        self.preprocess = preprocess
        self.schema = schema
        self.wanted = observers.listen(FIRST_BATCH)

    def show(self, images: Tensor, targets: Tensor) -> None:
        """Show a batch if it is the first.

        Args:
            images: `[images, channels, height, width]`: uint8, or floats that are normalized.
            targets: `[images, ...]`.
        """
        if not self.wanted:
            return
        self.wanted = False
        shown = denormalize(images.detach(), self.preprocess).permute(0, 2, 3, 1).cpu()
        pixels, values = (_read_only(each) for each in (shown, targets.cpu()))
        event = FirstBatchRead(pixels, values, self.schema.to_dict())
        self.observers.tell(FIRST_BATCH, event)


def _read_only(tensor: Tensor) -> NDArray[Any]:
    """Return a copy as an array; over bytes, it cannot be made writable again."""
    values = tensor.numpy()
    return np.frombuffer(values.tobytes(), dtype=values.dtype).reshape(values.shape)
