"""Notify the observers of a training, isolated from the state of the training."""

from __future__ import annotations

import random
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zoo.data.schema import Schema
from zoo.data.transforms import denormalize
from zoo.engine.runtime.distributed import SINGLE, Ranks
from zoo.errors import one_line
from zoo.events import EpochEnded, Event, FirstBatchRead, ResultsCollected
from zoo.registry.hook_manager import Results
from zoo.registry.plugins import PluginHost
from zoo.sections import Section
from zoo.spec import Preprocess

FIRST_BATCH, STEP, STOP = "zoo_on_first_batch", "zoo_after_step", "zoo_should_stop"
SECTIONS = "zoo_report_sections"


class StopReasons(Results):
    """The reasons to stop that plugins return, as text that names the plugin."""

    def accept(self, plugin: str, result: Any) -> str | None:
        """Return the reason of a plugin, or None.

        Raises:
            TypeError: it returned something else.
        """
        if result is None:
            return None
        if not isinstance(result, str) or not result.strip():
            raise TypeError(f"it returned {result!r:.80}, not a reason as text, or None")
        return f"plugin {plugin!r}: {' '.join(result.split())}"


class PluginSections(Results):
    """The sections that plugins add to the report of a training."""

    def accept(self, plugin: str, result: Any) -> tuple[Section, ...]:
        """Return the sections of a plugin; None is none.

        Raises:
            TypeError: it returned something else.
        """
        if result is None:
            return ()
        sections = tuple(result) if isinstance(result, Iterable) else (result,)
        for each in sections:
            if not isinstance(each, Section):
                raise TypeError(f"it returned {each!r:.80}, not sections of a report")
        return sections


class Observers:
    """The observers of one training.

    The first failure of a plugin in a hook is warned of; `close` reports how many there were.

    Args:
        host: the loaded plugins.
        device: of the training.
        ranks: of the processes that train together; only rank 0 notifies.
        options: of each plugin by name; None for none.
        run_id: of the training, in each event; None for a new one.
    """

    def __init__(
        self,
        host: PluginHost,
        device: torch.device,
        ranks: Ranks = SINGLE,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        run_id: str | None = None,
    ) -> None:
        self.host = host
        self.ranks = ranks
        self.options = options
        self.device = device
        self.run_id = run_id or secrets.token_hex(16)
        self.failures: Counter[tuple[str, str]] = Counter()

    def implements(self, hook: str) -> bool:
        """Whether any plugin implements a hook."""
        return not self.ranks.rank and self.host.implements(hook)

    def notify(self, hook: str, event: Event) -> None:
        """Notify every observer of an event; failures are warnings, interrupts propagate."""
        self._call(hook, event, Results())

    def stop_reason(self, event: EpochEnded) -> str | None:
        """Return why the first plugin that requests it stops the training; None if none does."""
        reasons = self._call(STOP, event, StopReasons())
        return next((str(reason) for reason in reasons or ()), None)

    def sections(self, event: ResultsCollected) -> list[Section]:
        """Return the sections that plugins add to the report; failures are warnings."""
        added = self._call(SECTIONS, event, PluginSections())
        return [section for sections in added or () for section in sections]

    def _call(self, hook: str, event: Event, results: Results) -> Any:
        """Call the observers, and return pluggy's result; failures are warnings."""
        if not self.implements(hook):
            return None
        ranks = self.ranks
        event = replace(event, run_id=self.run_id, rank=ranks.rank, world=ranks.world)
        with isolated_rng_and_modes(self.device):
            returned, outcomes = self.host.call(hook, event, results, self.options)
        for outcome in outcomes:
            if outcome.error is not None:
                self._record_failure(outcome.plugin, hook, outcome.error)
        return returned

    def _record_failure(self, name: str, hook: str, error: BaseException) -> None:
        self.failures[name, hook] += 1
        if self.failures[name, hook] == 1:
            self.host.warn(f"plugin {name!r} failed in {hook}: {one_line(error)}")

    def close(self) -> None:
        """Report the number of failures of each plugin and hook that failed repeatedly."""
        for (name, hook), times in self.failures.items():
            if times > 1:
                self.host.warn(f"plugin {name!r} failed {times} times in {hook}")
        self.failures.clear()


@contextmanager
def isolated_rng_and_modes(device: torch.device) -> Iterator[None]:
    """Restore the random state, the gradient mode and the inference mode after a block.

    The random state is that of torch, on the CPU and on the device, of numpy and of Python.

    Args:
        device: of the training.
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
    """Notifies observers of the first training batch; without observers, nothing is computed.

    Args:
        observers: of the training.
        preprocess: of normalized images.
        schema: of the targets.
        interruptible: enters a block in which a signal is not deferred: no step precedes it.
    """

    def __init__(
        self,
        observers: Observers,
        preprocess: Preprocess,
        schema: Schema,
        interruptible: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        self.observers = observers
        self.preprocess = preprocess
        self.schema = schema
        self.interruptible = interruptible
        self.enabled = observers.implements(FIRST_BATCH)

    def notify(self, images: Tensor, targets: Tensor) -> None:
        """Notify observers of a batch if it is the first.

        Args:
            images: `[images, channels, height, width]`, uint8 or normalized floats.
            targets: `[images, ...]`.
        """
        if not self.enabled:
            return
        self.enabled = False
        pixels = denormalize(images.detach(), self.preprocess).permute(0, 2, 3, 1).cpu()
        arrays = _read_only(pixels), _read_only(targets.cpu())
        event = FirstBatchRead(*arrays, self.schema.to_dict())
        with self.interruptible():
            self.observers.notify(FIRST_BATCH, event)


def _read_only(tensor: Tensor) -> NDArray[Any]:
    """Return a copy as an array that cannot be made writable: its memory is a `bytes` object."""
    values = tensor.numpy()
    return np.frombuffer(values.tobytes(), dtype=values.dtype).reshape(values.shape)
