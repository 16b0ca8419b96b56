"""Choose the engine of features by rule, and check it on images."""

from __future__ import annotations

from torch import Tensor

from zoo.cache import stored_images
from zoo.data.split import Split
from zoo.engine.backends.choice import TORCH, Choice, choose, confirm, engine_of
from zoo.engine.features.cache import FeatureCache, trains_auxiliary
from zoo.engine.features.fingerprint import network_fingerprint
from zoo.engine.runtime.network import Network

AGREEMENT = "agreement"


def choose_engine(network: Network, given: str, batch: int, images: int) -> Choice:
    """Choose the engine that computes the features of images.

    Args:
        network: frozen by the policy `head`.
        given: `auto`, or the name of an engine.
        batch: images per forward pass.
        images: number of them, views counted.

    Raises:
        UsageError: the given engine does not compute on the device.
        EnvironmentProblem: it is not installed.
    """
    training = trains_auxiliary(network)

    def remaining() -> int:
        name, _ = network_fingerprint(network, batch)
        return max(0, images - stored_images(name))

    return choose(network, given, lambda name: engine_of(network, name, batch, training), remaining)


def confirm_engine(
    choice: Choice,
    cache: FeatureCache,
    split: Split,
    images: int | None = None,
    write: bool = True,
) -> Choice:
    """Check an engine on a batch, once per store of features.

    Args:
        choice: of the engine.
        cache: that computes by it.
        split: provides the images, unless the engine has been checked for another store.
        images: how many; None for a batch.
        write: whether to cache a conversion.

    Returns:
        The choice, or torch if an engine that was not given cannot compute the network.

    Raises:
        BrokenBackbone: a given engine cannot compute the network.
        DataError: no image of the split can be read.
    """
    if choice.name == TORCH or AGREEMENT in cache.store.checks:
        return choice

    def some() -> Tensor:
        return cache.first_readable(split, images).inputs

    confirmed = confirm(choice, cache.engine, some, write)
    if confirmed.name == choice.name:
        cache.store.record_check(AGREEMENT, None)
    return confirmed
