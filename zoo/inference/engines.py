"""Choose the engine of predictions and evaluations: the one that the head was fitted on."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterable, Iterator
from typing import TypeAlias

from torch import Tensor

from zoo.data.images import PreparedImage
from zoo.data.split import Split
from zoo.engine.backends.body import mode_of
from zoo.engine.backends.choice import (
    AUTO,
    CONVERTED,
    FEW,
    TORCH,
    Choice,
    confirm,
    engine_class,
    engine_of,
    pays_from,
    without_option,
)
from zoo.engine.backends.engine import Engine, Inputs
from zoo.engine.features.hooks import check_head_equivalence
from zoo.engine.runtime.device import environment_errors
from zoo.engine.runtime.network import Network
from zoo.engine.runtime.reader import ImageReader
from zoo.engine.runtime.stream import FailedImage, stack_images
from zoo.errors import UsageError, ZooError
from zoo.modelfile import ModelCard
from zoo.models.freeze import inference_mode_of

log = logging.getLogger(__name__)

PredictedBatch: TypeAlias = list[PreparedImage | FailedImage]
# Images of one size and their pixels.
Group: TypeAlias = tuple[list[PreparedImage], Tensor]


def split_engine(
    network: Network, card: ModelCard | None, given: str, split: Split, reader: ImageReader
) -> Engine | None:
    """Return the engine to evaluate a split by; None for torch.

    Raises:
        ZooError: a given engine cannot be used.
    """
    with network.lock:
        count = len(split)
        # Of any number of images, so that the metrics are those that the training computes.
        engine, choice = inference_engine(network, card, given, reader.batch_size, count, few=0)
        if engine is None:
            return None
        # A DataLoader has its own order, and may read its images once.
        first = next(reader.read(split, range(min(len(split), reader.batch_size))), None)
        return None if first is None else confirmed_engine(engine, choice, card, first.inputs)


def head_inputs(
    network: Network,
    card: ModelCard | None,
    given: str,
    batches: Iterable[PredictedBatch],
    batch_size: int,
    count: int | None = None,
    heads: bool = True,
) -> Iterator[tuple[Group | PredictedBatch, Inputs | None]]:
    """Yield the groups of each batch with the inputs of the heads, then the batch itself.

    The inputs are None where torch is to compute the whole network.

    Args:
        network: to compute, in eval mode.
        card: of its model file; None for any other network.
        given: `auto`, or the name of an engine.
        batches: of images.
        batch_size: images per forward pass.
        count: number of images, or `pays_from` if there are more; None where it is not known.
        heads: whether the heads are to have the outputs of the network.

    Raises:
        ZooError: a given engine cannot be used.
    """
    remaining = iter(batches)
    first = next(remaining, [])
    if len(first) < batch_size:
        count = len(first)
    with network.lock, mode_of(network.module, training=False):
        engine, choice = inference_engine(network, card, given, batch_size, count)
        group = next(stack_images(first), None)
        if engine is not None and group is not None:
            with environment_errors("predicting"):
                engine = confirmed_engine(engine, choice, card, group[1], heads)

    def groups() -> Iterator[Group | PredictedBatch]:
        for batch in itertools.chain([first], remaining):
            yield from stack_images(batch)
            yield batch

    def pixels(each: Group | PredictedBatch) -> Tensor | None:
        if engine is None or not isinstance(each, tuple):
            return None
        return each[1] if engine.accepts(each[1]) else None

    if engine is None:
        yield from ((each, None) for each in groups())
    else:
        yield from engine.stream(groups(), pixels)


def inference_engine(
    network: Network,
    card: ModelCard | None,
    given: str,
    batch: int,
    count: int | None,
    few: int = FEW,
) -> tuple[Engine | None, Choice]:
    """Choose an engine by rule, without running it.

    By `auto` the engine is that of the features that the head was fitted on; of published weights,
    the one that a training would use. It is torch for fewer images than `few`, and where a
    conversion that is not cached would take longer than it saves.

    Args:
        network: to compute, in eval mode.
        card: of its model file; None for a pretrained backbone.
        given: `auto`, or the name of an engine.
        batch: images per forward pass.
        count: number of images; None for an unknown number, of at least a batch.
        few: fewer images are computed in torch.

    Returns:
        The engine, None for torch; and its choice.

    Raises:
        UsageError: the given engine does not compute on the device.
        EnvironmentProblem: it is not installed.
    """
    if given == TORCH:
        return None, Choice(TORCH, "as given", given=True)
    if given != AUTO:
        engine_class(given).check(network.device)
        return engine_of(network, given, batch), Choice(given, "as given", given=True)
    fitted = CONVERTED if card is None else card.engine
    if fitted == TORCH or (count is not None and count < few):
        return None, Choice(TORCH, f"auto: {fitted}, or less than {few} images")
    try:
        engine_class(fitted).check(network.device)
    except KeyError:
        return None, _announced(card, f"no engine is named {fitted}; upgrade zoo-registry")
    except ZooError as error:
        hint = f"; {error.hint}" if error.hint else ""
        return None, _announced(card, f"{without_option(fitted, error)}{hint}")
    engine = engine_of(network, fitted, batch)
    if engine.converts and not engine.is_converted() and (count or 0) < pays_from(network):
        number = "too few images" if count is not None else "an unknown number of images"
        return None, _announced(card, f"{number} to convert the network for, and none is cached")
    return engine, Choice(fitted, "auto: the head was fitted on its features")


def confirmed_engine(
    engine: Engine, choice: Choice, card: ModelCard | None, images: Tensor, heads: bool = True
) -> Engine | None:
    """Check an engine on images; return None for torch, if it was not given and fails.

    Args:
        engine: to check.
        choice: of it.
        card: of the model file; None for any other network.
        images: a batch.
        heads: whether the heads are to have the outputs of the network.

    Raises:
        UsageError: it is given, and the network does more than its heads after the features.
        BrokenBackbone: it is given, and cannot compute the network.
    """
    if heads and (card is None or card.engine != choice.name):  # else the training checked it
        reason = _checked_heads(engine, images)
        if reason is not None and choice.given:
            raise UsageError(f"--engine {choice.name}: {reason}", "omit it")
        if reason is not None:
            return None
    confirmed = confirm(choice, engine, lambda: images)
    if confirmed.name == choice.name:
        return engine
    _announced(card, confirmed.reason.removeprefix("auto: "))
    return None


def _checked_heads(engine: Engine, images: Tensor) -> str | None:
    """Return why heads on features have other outputs than the network, by an earlier check too."""
    network, forwards = engine.network, engine.network.forwards
    kinds = [type(network.module.get_submodule(path)).__name__ for path in network.paths]
    name = f"outputs of heads: {', '.join(kinds)}"
    if name not in engine.checks():
        with inference_mode_of(network.module):
            reason, _ = check_head_equivalence(network, images, modes=(False,))
        network.forwards = forwards
        engine.record_check(name, reason)
    return engine.checks()[name]


def _announced(card: ModelCard | None, reason: str) -> Choice:
    """Return torch as the choice, after a warning if the head was fitted by another engine."""
    if card is not None:
        text = "computing in torch, though the head was fitted on features of %s: %s"
        log.warning(text, card.engine, reason)
    return Choice(TORCH, f"auto: {reason}")
