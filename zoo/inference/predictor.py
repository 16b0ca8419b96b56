"""A network ready for use: a model file loaded, or a pretrained backbone as it was published."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zoo.data.images import as_many, name_of, prepare_one
from zoo.data.sources import open_data, open_split
from zoo.data.split import SPLITS, Split
from zoo.engine.features.extract import read_features
from zoo.engine.runtime.allocator import reused_memory
from zoo.engine.runtime.device import memory_errors, resolve_device, resolve_precision
from zoo.engine.runtime.network import Network
from zoo.engine.training.sources import Pictures, count
from zoo.errors import DataError, UnknownBackbone, UsageError, ZooError
from zoo.modelfile import ModelCard, read_model
from zoo.models.base_weights import is_file_choice, resolve_base
from zoo.models.build import build, build_trained
from zoo.models.freeze import in_use
from zoo.models.plugin_errors import guard
from zoo.models.provenance import how_made
from zoo.registry.plugins import OFF
from zoo.registry.registry import Registry
from zoo.spec import Backbone, Head, Preprocess, Weights, resolve_target
from zoo.tasks.classification.metrics import Metrics

BATCH = 32


class Model:
    """A network with its classes, ready to predict and to be evaluated.

    Args:
        network: on its device, in eval mode.
        classes: names in the order of the logits.
        backbone: id of the backbone.
        card: of its model file; None for a backbone as it was published.
    """

    def __init__(
        self,
        network: Network,
        classes: Sequence[str],
        backbone: str,
        card: ModelCard | None = None,
    ) -> None:
        self.network = network
        self.card = card
        self.classes = tuple(classes)
        self.backbone = backbone
        network.module.eval()

    @property
    def module(self) -> nn.Module:
        """The network itself, a plain torch module on the model's device."""
        module: nn.Module = self.network.module
        return module

    @property
    def preprocess(self) -> Preprocess:
        """How an image becomes the network's input."""
        return self.network.preprocess

    def predict(
        self, images: Any | Iterable[Any], top: int = 5, batch_size: int = BATCH
    ) -> list[dict[str, Any]]:
        """Classify images.

        Args:
            images: paths, bytes, open files, PIL images or uint8 arrays `[height, width, 3]`; one
                or many.
            top: how many classes to give for each, most probable first.
            batch_size: images per forward pass.

        Returns:
            For each image `path` and `predictions: [{class, probability}]`, or `path` and `error`
            where it cannot be read.

        Raises:
            UsageError: `top` is not positive.
            EnvironmentProblem: memory ran out.
        """
        if top < 1:
            raise UsageError(f"top is {top}", "give at least 1")
        answers: list[dict[str, Any]] = []
        waiting: list[tuple[dict[str, Any], torch.Tensor]] = []
        for image in as_many(images):
            answer: dict[str, Any] = {"path": name_of(image)}
            answers.append(answer)
            try:
                waiting.append((answer, prepare_one(image, self.preprocess)))
            except DataError as error:
                answer["error"] = str(error)
            if len(waiting) == batch_size:
                self._answer(waiting, top)
                waiting = []
        self._answer(waiting, top)
        return answers

    def _answer(self, waiting: list[tuple[dict[str, Any], torch.Tensor]], top: int) -> None:
        if not waiting:
            return
        pixels = torch.stack([image for _, image in waiting])
        with in_use(self.module), memory_errors("predicting"):
            logits = self.network.logits(pixels).main.float()
        best = logits.softmax(dim=1).topk(min(top, len(self.classes)), dim=1)
        for (answer, _), values, places in zip(
            waiting, best.values.tolist(), best.indices.tolist(), strict=True
        ):
            answer["predictions"] = [
                {"class": self.classes[place], "probability": value}
                for value, place in zip(values, places, strict=True)
            ]

    def features(self, images: Any, batch_size: int = BATCH) -> torch.Tensor:
        """Return what the main head reads of images; see `zoo.features`."""
        module, precision = self.module, self.network.precision
        return read_features(module, how_made(module), images, batch_size, precision)

    def evaluate(
        self,
        data: Any = None,
        split: str | None = None,
        batch_size: int = BATCH,
        workers: int = 0,
        bad_images: str = "error",
        metrics: Metrics | None = None,
    ) -> dict[str, Any]:
        """Measure it on images, classes matched by name.

        Args:
            data: as `zoo.finetune` takes it; None for the embedded set. A `Dataset` or a
                `DataLoader` is measured whole, its labels being positions in `classes`.
            split: which split; by default `test` where there is one, else `val`. Of the very
                folder that it was trained on, `val` is what training held out.
            batch_size: images per forward pass.
            workers: processes that decode.
            bad_images: `error` or `skip`.
            metrics: further ones by name, each called with all logits and labels.

        Returns:
            `split`, `loss`, `top1` and `top5` in 0..1, `images`, `per_class`, `confusion`
            (row: true class), and `bad_images` by path.

        Raises:
            DataError: the folder cannot be used, has a class that the model has not, or holds an
                image that cannot be read.
        """
        chosen = self._trained_split(data, split) or open_split(data, self.classes, split)
        pictures = Pictures(batch_size, workers, bad_images)
        with reused_memory(), memory_errors("evaluating"):
            meter = count(self.network, chosen, pictures, len(self.classes), metrics)
        if not meter.summary()["images"]:
            raise DataError(f"no image of the {chosen.name} split can be read")
        said = meter.details(self.classes)
        return {"split": chosen.name, **said, "bad_images": dict(sorted(pictures.bad.items()))}

    def _trained_split(self, data: Any, split: str | None) -> Split | None:
        """Return the split that training itself made of these images; None of any others."""
        if self.card is None or not {"seed", "val_fraction"} <= self.card.settings.keys():
            return None
        if not isinstance(data, str | Path | None):
            return None  # a Dataset's fingerprint does not tell its pictures from another's
        settings = self.card.settings
        try:
            found = open_data(data, seed=settings["seed"], val_fraction=settings["val_fraction"])
        except (ZooError, TypeError, ValueError):
            return None
        if found.fingerprint != self.card.data.get("fingerprint") or found.classes != self.classes:
            return None
        wanted = split or ("test" if "test" in found.splits else "val")
        return found.splits.get(SPLITS.get(wanted.lower(), wanted))


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
) -> Model:
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
    module = build_trained(_backbone_of(card, file, registry), card, content.tensors, file)
    del content  # the network has the tensors
    network = _on_device(module, card.heads, card.preprocess, device, precision or card.precision)
    return Model(network, card.classes, card.backbone, card)


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
) -> Model:
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
    return Model(
        _on_device(module, backbone.heads, base.preprocess, device, precision), (), backbone.id
    )


def _on_device(
    module: nn.Module, heads: Sequence[Head], preprocess: Preprocess, device: str, precision: str
) -> Network:
    place, _ = resolve_device(device)
    chosen, _ = resolve_precision(precision, place)
    network = Network(module, heads, preprocess, place, chosen)
    if precision == "auto":
        network.fall_back()
    return network


def published_classes(backbone: Backbone, weights: Weights) -> tuple[str, ...]:
    """Return the class names that published weights predict.

    Raises:
        UsageError: they come without a head, or their classes are not known.
    """
    hint = f"`zoo finetune {backbone.id}` gives it a head of your own"
    if weights.features_only or not weights.num_classes or not backbone.heads:
        raise UsageError(f"{backbone.id} {weights.tag} is published without a head", hint)
    names = weights.classes
    if isinstance(names, str):
        found = resolve_target(names, f"weights {weights.tag!r} of {backbone.id}")
        with guard(f"{names}, the classes of {backbone.id}, cannot be read"):
            names = tuple(str(name) for name in (found() if callable(found) else found))
    if names is None:
        raise UsageError(f"{backbone.id} {weights.tag} is published without names of classes", hint)
    if len(names) != weights.num_classes:
        message = f"{backbone.id} {weights.tag} has {weights.num_classes} classes"
        raise UsageError(f"{message}, but its adapter names {len(names)}")
    return tuple(names)


def load_pretrained(
    name: str,
    registry: Registry,
    weights: str = "auto",
    device: str = "auto",
    precision: str = "fp32",
) -> Model:
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
    classes = published_classes(backbone, base.published)
    module = build(backbone, base)
    network = _on_device(module, backbone.heads, base.preprocess, device, precision)
    return Model(network, classes, backbone.id)
