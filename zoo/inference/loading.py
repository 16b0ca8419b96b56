"""Load a model file, a run folder, or a pretrained backbone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from zoo.engine.runtime.device import resolve_device, resolve_precision
from zoo.engine.runtime.network import Network
from zoo.errors import UnknownBackbone, UsageError, WeightsError
from zoo.inference.predictor import Predictor
from zoo.modelfile import ModelCard, read_model
from zoo.models.base_weights import is_file_choice, resolve_base
from zoo.models.build import build, build_trained
from zoo.registry.plugins import OFF
from zoo.registry.registry import Registry
from zoo.spec import Backbone, Head, Preprocess
from zoo.tasks.base import BaseTask, Schema, load_task


def model_file_at(path: str | Path) -> Path | None:
    """Return the model file that a path means: itself, or that of a run folder; None if neither."""
    place = Path(path)
    try:
        if place.is_dir():
            return place / "model.safetensors"
        return place if place.exists() or place.suffix == ".safetensors" else None
    except OSError:
        return None  # too long for a path, so perhaps a name


def load_model(
    path: str | Path, registry: Registry, device: str = "auto", precision: str | None = None
) -> Predictor:
    """Load a model file, or the one of a run folder.

    Args:
        path: a `model.safetensors`, or a run folder.
        registry: where its backbone is looked up.
        device: where to compute.
        precision: None for the one it was trained in.

    Raises:
        WeightsError: it is missing, damaged, or does not fit its backbone.
        UnknownBackbone: its backbone's plugin is not installed.
    """
    file = model_file_at(path) or Path(path)
    card, content = read_model(file)
    backbone = _backbone_of(card, file, registry)
    task = load_task(registry.task(card.task))
    try:
        schema = task.schema_from_dict(card.schema)
        if schema.outputs < 1:
            raise ValueError("it has no outputs")
    except (TypeError, ValueError, KeyError) as error:
        raise WeightsError(f"{file} has a damaged description: its schema: {error}") from error
    module = build_trained(backbone, card, schema.outputs, content.tensors, file)
    del content  # the network has the tensors
    network = _on_device(
        module, card.heads, card.preprocess, device, precision or card.precision, task
    )
    return Predictor(network, schema, card.backbone, card)


def _backbone_of(card: ModelCard, file: Path, registry: Registry) -> Backbone:
    """Look the backbone of a model file up, or say where such a one may come from."""
    try:
        return registry.get(card.backbone)
    except UnknownBackbone as error:
        source = card.backbone.partition("/")[0]
        note = "; ".join(said for said in (f"{file} is made of it", error.note) if said)
        known = {record.status for record in registry.host.records if record.name == source}
        hint = f"install plugin {source}, or name its file with --plugin FILE"
        if OFF in known:
            hint = "switch it on again: look at --no-plugin and ZOO_PLUGINS"
        elif known:
            hint = f"another version of plugin {source} may have it"
        else:
            hint += ", or the registry.toml that derives it with --registry FILE"
        raise UnknownBackbone(card.backbone, (), note, hint) from error


def load_features(
    name: str | Path, registry: Registry, device: str = "auto", precision: str = "auto"
) -> Predictor:
    """Load a model file, a run folder, or a pretrained backbone, whatever its head is worth.

    Args:
        name: of any of them.
        registry: where backbones are looked up.
        device: where to compute.
        precision: of a backbone; a model file has its own.

    Raises:
        UsageError: the backbone has no published weights.
        WeightsError: they cannot be had, or the file cannot be used.
    """
    if model_file_at(name):
        return load_model(name, registry, device)
    backbone = registry.get(str(name))
    if not backbone.weights:
        hint = f"build one: zoo.get({str(name)!r}).build()"
        raise UsageError(f"{backbone.id} has no published weights to read features with", hint)
    base = resolve_base(backbone, "auto")
    module = build(backbone, base)
    task = load_task(registry.task(backbone.task))
    network = _on_device(module, backbone.heads, base.preprocess, device, precision, task)
    return Predictor(network, Schema(), backbone.id)


def _on_device(
    module: nn.Module,
    heads: Sequence[Head],
    preprocess: Preprocess,
    device: str,
    precision: str,
    task: BaseTask,
) -> Network:
    place, _ = resolve_device(device)
    chosen, _ = resolve_precision(precision, place)
    network = Network(module, heads, preprocess, place, chosen, task)
    if precision == "auto":
        network.fall_back()
    return network


def load_pretrained(
    name: str,
    registry: Registry,
    weights: str = "auto",
    device: str = "auto",
    precision: str = "fp32",
) -> Predictor:
    """Load a pretrained backbone as it was published, with its own classes.

    In float32, so that it says what its library's own network says.

    Raises:
        UnknownBackbone: there is none of that name.
        UsageError: it comes without a head, or without published weights.
        WeightsError: its weights cannot be had.
    """
    backbone = registry.get(name)
    no_default = weights == "auto" and not backbone.weights
    if weights == "none" or is_file_choice(weights) or no_default:
        hint = f"`zoo finetune {backbone.id}` trains it on images of yours"
        raise UsageError(f"{backbone.id} has no published weights to predict with", hint)
    base = resolve_base(backbone, weights)
    assert base.published is not None
    task = load_task(registry.task(backbone.task))
    schema = task.published_schema(backbone, base.published)
    module = build(backbone, base)
    network = _on_device(module, backbone.heads, base.preprocess, device, precision, task)
    return Predictor(network, schema, backbone.id)
