"""Load a model file, a run folder, or a pretrained backbone."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

from torch import nn

from zoo.engine.runtime.device import resolve_device, resolve_precision
from zoo.engine.runtime.network import Network
from zoo.errors import UsageError, WeightsError
from zoo.inference.predictor import Predictor
from zoo.modelfile import ModelCard, parse_card
from zoo.models.base_weights import resolve_base
from zoo.models.build import build, build_trained
from zoo.models.own_file import (
    OwnFile,
    OwnLocation,
    backbone_of,
    locate_model,
    locate_weights,
    warn_unfinished,
)
from zoo.registry.registry import Registry
from zoo.spec import Backbone, Head, Preprocess
from zoo.tasks.base import BaseTask, Schema, load_task
from zoo.tensorfile import TensorFile

log = logging.getLogger(__name__)


def load_model(
    path: str | Path,
    registry: Registry,
    device: str = "auto",
    precision: str | None = None,
    engine: str = "auto",
) -> Predictor:
    """Load a model file, or the one of a run folder.

    Args:
        path: a `model.safetensors`, a run folder, or the name of a registered model.
        registry: of backbones.
        device: as torch names it, or `auto`.
        precision: `fp32` or `bf16`; None for that of the training, or `fp32` where the device would
            emulate it.
        engine: of the features before the heads, `auto` or the name of one.

    Raises:
        WeightsError: it is missing, damaged, or does not fit its backbone.
        UnknownBackbone: its backbone's plugin is not installed.
    """
    own = OwnFile.open(locate_model(path) or OwnLocation(Path(path)))
    card = own.card or parse_card(own.path, own.content)
    return _load_trained(own.path, card, own.content, registry, device, precision, engine)


def _load_trained(
    file: Path,
    card: ModelCard,
    content: TensorFile,
    registry: Registry,
    device: str,
    precision: str | None,
    engine: str,
) -> Predictor:
    backbone = backbone_of(card, file, registry)
    warn_unfinished(card, file)
    task = load_task(registry.task(card.task))
    try:
        schema = task.schema_from_dict(card.schema)
        if schema.outputs < 1:
            raise ValueError("no outputs")
    except (TypeError, ValueError, KeyError) as error:
        raise WeightsError(f"{file} has an invalid schema: {error}") from error
    module = build_trained(backbone, card, schema.outputs, content.tensors, file)
    del content  # frees the tensors, which the network has copied
    network = on_device(
        module,
        card.heads,
        card.preprocess,
        device,
        precision or _trained_precision(card, device),
        task,
        card.memory_format,
    )
    return Predictor(network, schema, card.backbone, card, engine)


def _trained_precision(card: ModelCard, device: str) -> str:
    """Return the precision of a training, or `fp32` where the device would emulate it.

    Emulated bfloat16 takes six to twelve times as long as float32 on a CPU.
    """
    native, reason = resolve_precision("auto", resolve_device(device)[0])
    if card.precision == "bf16" != native:
        text = "computing in %s, though the model was trained in bf16: %s"
        log.warning(text, native, reason.removeprefix("auto: "))
        return native
    return card.precision


def load_features(
    name: str | Path, registry: Registry, device: str = "auto", precision: str = "auto"
) -> Predictor:
    """Load a model file, a run folder, or a pretrained backbone, to compute features.

    Args:
        name: path, or name of a registered model or of a backbone.
        registry: of backbones.
        device: as torch names it, or `auto`.
        precision: of a backbone; that of a model file is stored in it.

    Raises:
        UsageError: the backbone has no published weights.
        WeightsError: the weights are not available, or the file cannot be used.
    """
    if locate_model(name, registry):
        return load_model(name, registry, device)
    backbone = registry.get(str(name))
    if not backbone.weights:
        hint = f"build one: zoo.get({str(name)!r}).build()"
        raise UsageError(f"{backbone.id} has no published weights to compute features with", hint)
    base = resolve_base(backbone, "auto")
    module = build(backbone, base)
    task = load_task(registry.task(backbone.task))
    network = on_device(module, backbone.heads, base.preprocess, device, precision, task)
    return Predictor(network, Schema(), backbone.id)


def on_device(
    module: nn.Module,
    heads: Sequence[Head],
    preprocess: Preprocess,
    device: str,
    precision: str,
    task: BaseTask,
    memory_format: str = "auto",
) -> Network:
    """Return a network on a device, in a precision."""
    resolved, _ = resolve_device(device)
    dtype, _ = resolve_precision(precision, resolved)
    network = Network(module, heads, preprocess, resolved, dtype, task, memory_format=memory_format)
    if precision == "auto":
        network.fall_back()
    return network


def load_any(
    name: str | Path,
    registry: Registry,
    weights: str | None = None,
    device: str = "auto",
    precision: str | None = None,
    engine: str = "auto",
) -> Predictor:
    """Load a model file, a run folder, or a pretrained backbone.

    Args:
        name: path, or name of a registered model or of a backbone.
        registry: of backbones.
        weights: of a backbone, as for `load_pretrained`; None for `auto`.
        device: as torch names it, or `auto`.
        precision: as for `load_model` and `load_pretrained`.
        engine: of the features before the heads, `auto` or the name of one.

    Raises:
        UsageError: weights are given for a model file.
        ZooError: as `load_model` and `load_pretrained` raise.
    """
    if not locate_model(name, registry):
        return load_pretrained(str(name), registry, weights or "auto", device, precision, engine)
    if weights is None:
        return load_model(name, registry, device, precision, engine)
    message = f"--weights {weights} does not apply to {name}"
    raise UsageError(message, "a model file has its own weights; omit the option")


def load_pretrained(
    name: str,
    registry: Registry,
    weights: str = "auto",
    device: str = "auto",
    precision: str | None = None,
    engine: str = "auto",
) -> Predictor:
    """Load a pretrained backbone with its published head and classes, or a model file of it.

    In float32 by default, so that predictions equal those of its library; a model file has its own
    precision.

    Args:
        name: id, bare name or alias.
        registry: of backbones.
        weights: `auto`, a published tag, a model file or a run folder.
        device: as torch names it, or `auto`.
        precision: None for `fp32`, and that of the training for a model file.
        engine: of the features before the heads, `auto` or the name of one.

    Raises:
        UnknownBackbone: no backbone has the name.
        UsageError: no weights are published, or they have no head or no names of classes.
        WeightsError: the weights are not available, or are of another backbone.
    """
    backbone = registry.get(name)
    if (location := locate_weights(weights, backbone)) is not None:
        return _load_own(backbone, location, registry, device, precision, engine)
    hint = f"`zoo finetune {backbone.id}` trains it on your images"
    if weights == "none":
        raise UsageError("--weights none: random weights predict nothing", hint)
    if weights == "auto" and not backbone.weights:
        raise UsageError(f"{backbone.id} has no published weights to predict with", hint)
    base = resolve_base(backbone, weights)
    assert base.published is not None
    task = load_task(registry.task(backbone.task))
    schema = task.published_schema(backbone, base.published)
    module = build(backbone, base)
    network = on_device(module, backbone.heads, base.preprocess, device, precision or "fp32", task)
    return Predictor(network, schema, backbone.id, engine=engine)


def _load_own(
    backbone: Backbone,
    location: OwnLocation,
    registry: Registry,
    device: str,
    precision: str | None,
    engine: str,
) -> Predictor:
    """Load a user's weights of a backbone.

    Raises:
        UsageError: the file names no classes.
        WeightsError: it is of another backbone, or cannot be read.
    """
    own, path = OwnFile.open(location), location.path
    if own.card is None:
        out = path.with_stem(f"{path.stem}-model").name
        hint = (
            f"`zoo import {quote(str(path))} --as {backbone.id} --classes FILE --out {quote(out)}`"
        )
        raise UsageError(f"{path} names no classes to predict", f"{hint} makes a model file of it")
    own.check_backbone(backbone)
    return _load_trained(path, own.card, own.content, registry, device, precision, engine)
