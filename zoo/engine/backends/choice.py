"""Choose an engine by a fixed rule, and check it on a batch of images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import torch
from torch import Tensor

from zoo.engine.backends.agreement import disagreement
from zoo.engine.backends.eager import TorchEngine
from zoo.engine.backends.engine import Engine
from zoo.engine.runtime.network import Network
from zoo.errors import BrokenBackbone, EnvironmentProblem, ZooError
from zoo.options.table import ENGINES

TORCH, AUTO = "torch", "auto"
# What `auto` selects where it can be used and pays: the fastest engine that needs no compiler.
CONVERTED = "openvino"
# Images from which on a conversion pays, and further ones for each module: on two cores it took
# 1.5 s and 0.01 s per module, and the pass saves 2 to 4 ms per image (`benchmarks/engines.py`).
MIN_IMAGES, IMAGES_PER_MODULE = 1000, 2
# Fewer images than a batch are not worth the half second of importing an engine.
FEW = 32


@dataclass(frozen=True)
class Choice:
    """An engine, and why it was chosen.

    Args:
        name: of the engine.
        reason: for a plan.
        given: whether the user chose it, so that no other may replace it.
    """

    name: str
    reason: str
    given: bool = False


def engine_class(name: str) -> type[Engine]:
    """Return the class of an engine."""
    module, _, attribute = ENGINES[name].partition(":")
    kind: type[Engine] = getattr(import_module(module), attribute)
    return kind


def without_option(name: str, error: ZooError) -> str:
    """Return the message of an engine's `check` without `--engine`, for who did not give it."""
    return error.message.removeprefix("--engine ").removeprefix(f"{name}: ")


def engine_of(network: Network, name: str, batch: int, training: bool = False) -> Engine:
    """Return an engine of a network, the same one each time.

    Args:
        network: whose body does not change any more.
        name: of the engine.
        batch: images per batch.
        training: as for `Engine`.
    """
    key = f"{name} {batch} {training}"
    if key not in network.engines:
        network.engines[key] = engine_class(name)(network, batch, training)
    engine: Engine = network.engines[key]
    return engine


def pays_from(network: Network) -> int:
    """Return the number of images from which on a conversion takes less time than it saves."""
    modules = sum(1 for _ in network.module.modules())
    return MIN_IMAGES + IMAGES_PER_MODULE * modules


def choose(
    network: Network, given: str, engine: Callable[[str], Engine], images: Callable[[], int]
) -> Choice:
    """Choose the engine for the images that remain to be computed.

    Args:
        network: to compute.
        given: `auto`, or the name of an engine.
        engine: returns one by name.
        images: returns the number of images that torch would have to compute.

    Raises:
        UsageError: the given engine does not compute on the device.
        EnvironmentProblem: it is not installed.
    """
    if given != AUTO:
        engine_class(given).check(network.device)
        return Choice(given, "as given", given=True)
    try:
        engine_class(CONVERTED).check(network.device)
    except ZooError as error:
        return Choice(TORCH, f"auto: {without_option(CONVERTED, error)}")
    if engine(CONVERTED).is_converted():
        return Choice(CONVERTED, "auto: the network was converted before")
    count, enough = images(), pays_from(network)
    if count < enough:
        reason = f"auto: a conversion pays from {enough:,} images on, and {count:,} remain"
        return Choice(TORCH, reason)
    return Choice(CONVERTED, f"auto: {count:,} images pay for the conversion")


def choose_alike(network: Network, given: str, images: Callable[[], int] | None = None) -> Choice:
    """Choose the engine for one of several jobs, by what is the same for all of them.

    Unlike `choose`, it does not ask what the cache of this machine contains.

    Args:
        network: to compute.
        given: `auto`, or the name of an engine.
        images: returns the number of images of all jobs; None for as many as pay.

    Raises:
        UsageError: the given engine does not compute on the device.
        EnvironmentProblem: it is not installed.
    """
    nothing_converted = TorchEngine(network, FEW)
    count = images or (lambda: pays_from(network))
    return choose(network, given, lambda _: nothing_converted, count)


def confirm(
    choice: Choice, engine: Engine, images: Callable[[], Tensor], write: bool = True
) -> Choice:
    """Load an engine, and check that it agrees with torch; else choose torch, if none was given.

    Args:
        choice: of the engine.
        engine: that was chosen.
        images: returns a batch of different images; not called where an earlier check is known.
        write: whether to cache a conversion, and the result.

    Raises:
        BrokenBackbone: the given engine cannot compute the network.
        EnvironmentProblem: it cannot be used in this process, or a file cannot be written.
    """
    if choice.name == TORCH:
        return choice
    try:
        engine.load(write)
        reason = _checked(engine, images)
    except BrokenBackbone as error:
        if choice.given:
            hint = "give --engine torch, or auto"
            raise BrokenBackbone(f"--engine {choice.name}: {error.message}", hint) from error
        return Choice(TORCH, f"auto: {error.message}")
    except EnvironmentProblem as error:
        if choice.given:
            raise
        return Choice(TORCH, f"auto: {without_option(choice.name, error)}")
    if reason is None:
        return choice
    if choice.given:
        message = f"--engine {choice.name} cannot compute the network: {reason}"
        raise BrokenBackbone(message, "give --engine torch, or auto")
    return Choice(TORCH, f"auto: {choice.name} cannot compute the network: {reason}")


def _checked(engine: Engine, images: Callable[[], Tensor]) -> str | None:
    """Return why an engine fails, from an earlier check of the same precision and machine."""
    machine = torch.backends.cpu.get_cpu_capability()
    network, threads = engine.network, torch.get_num_threads()
    name = f"{network.precision} {machine} {threads} threads, {engine.batch} images"
    checks = engine.checks()
    if name in checks:
        return checks[name]
    reason = engine.crash() or disagreement(engine, images())
    engine.record_check(name, reason)
    return reason
