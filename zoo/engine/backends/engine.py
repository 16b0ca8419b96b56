"""What an engine is: from a batch of images to the inputs of the heads."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable
from typing import TypeVar

import torch
from torch import Tensor

from zoo.engine.runtime.network import Network

Item = TypeVar("Item")
Inputs = dict[str, Tensor]


class Engine(ABC):
    """Computes the inputs of the heads of a frozen network, batch by batch.

    Args:
        network: on its device; what is outside of its heads must not change any more.
        batch: largest number of images of a batch; smaller ones are padded, since rounding in a
            kernel depends on the batch size.
        training: whether auxiliary heads run too, which they do in training mode only.

    Attributes:
        name: as the option `engine` selects it.
        converts: whether it converts the network first, which takes seconds.
        threaded: whether `stream` asks for the images of several items at once, each in a thread.
    """

    name: str
    converts = False
    threaded = False

    def __init__(self, network: Network, batch: int, training: bool = False) -> None:
        self.network = network
        self.batch = batch
        self.training = training
        self._checks: dict[str, str | None] = {}

    @staticmethod
    @abstractmethod
    def version() -> str | None:
        """Return the version of its library; None where it is not installed."""

    @classmethod
    @abstractmethod
    def check(cls, device: torch.device) -> None:
        """Check that it is installed, and computes on a device.

        Raises:
            UsageError: it does not compute on the device.
            EnvironmentProblem: it, or what it needs, is not installed.
        """

    def is_converted(self) -> bool:
        """Whether a conversion of the network is cached."""
        return False

    @abstractmethod
    def load(self, write: bool = True) -> None:
        """Prepare to compute, at the latest before the first batch.

        Args:
            write: whether to cache what was converted.

        Raises:
            BrokenBackbone: the network cannot be converted.
        """

    def crash(self) -> str | None:
        """Return why another process fails that computes by it; None where it does not.

        Native code that crashes would end this process.
        """
        return None

    @abstractmethod
    def compute(self, images: Tensor) -> Inputs:
        """Return the inputs of the heads by path, as forward hooks capture them in torch.

        Args:
            images: `[images, channels, height, width]`, at most `batch`, as for `Network.forward`.

        Returns:
            `[images, ...]` of each head, on the network's device.
        """

    def stream(
        self, items: Iterable[Item], images: Callable[[Item], Tensor | None]
    ) -> Generator[tuple[Item, Inputs | None]]:
        """Yield each item with the inputs of the heads, in order.

        An engine may compute on several items at once, so items are taken ahead of results.

        Args:
            items: batches.
            images: returns the images of an item; None for one without images. Each item is asked
                for once, and may be read then.
        """
        for item in items:
            pixels = images(item)
            yield item, None if pixels is None else self.compute(pixels)

    def checks(self) -> dict[str, str | None]:
        """Return the results of earlier checks: why each failed, by name."""
        return self._checks

    def record_check(self, name: str, reason: str | None) -> None:
        """Record the result of a check, for later."""
        self._checks[name] = reason

    def accepts(self, images: Tensor) -> bool:
        """Whether images have the size that the engine computes on."""
        return True
