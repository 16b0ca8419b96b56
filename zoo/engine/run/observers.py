"""Notifying the observers of a training, and isolating the training from what they do."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
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
        enabled: whether they are notified; of several processes, only the first one's are.
    """

    def __init__(self, host: PluginHost, device: torch.device, enabled: bool = True) -> None:
        self.host = host
        self.enabled = enabled
        self.device = device
        self.failures: Counter[tuple[str, str]] = Counter()

    def listen(self, hook: str) -> bool:
        """Whether any plugin implements a hook."""
        return self.enabled and self.host.implements(hook)

    def notify(self, hook: str, event: Event) -> None:
        """Notify every observer of an event; what one raises is a warning, but for interrupts."""
        if not self.listen(hook):
            return
        with isolated_rng_and_modes(self.device):
            outcomes = self.host.notify(hook, event)
        for outcome in outcomes:
            if outcome.error is not None:
                self._failed(outcome.plugin, hook, outcome.error)

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
def isolated_rng_and_modes(device: torch.device) -> Iterator[None]:
    """Restore the random generators, the gradient mode and the inference mode after a block.

    The generators are those of torch, on the CPU and on the device, of numpy and of Python.

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
        yield


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
        self.observers.notify(FIRST_BATCH, event)


def _read_only(tensor: Tensor) -> NDArray[Any]:
    """Return a copy as an array; over bytes, it cannot be made writable again."""
    values = tensor.numpy()
    return np.frombuffer(values.tobytes(), dtype=values.dtype).reshape(values.shape)
