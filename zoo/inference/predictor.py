"""A network in use: a trained model, or a pretrained backbone as it was published."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zoo.data.images import as_many, name_of, prepare_image
from zoo.data.split import SPLITS, Split
from zoo.engine.features.extract import extract_features
from zoo.engine.runtime.device import memory_errors
from zoo.engine.runtime.evaluate import evaluate_split
from zoo.engine.runtime.network import Network
from zoo.engine.runtime.reader import ImageReader
from zoo.errors import DataError, UsageError, ZooError
from zoo.modelfile import ModelCard
from zoo.models.freeze import inference_mode_of
from zoo.spec import Preprocess
from zoo.tasks.base import Schema, SourceImage, UserMetrics

BATCH_SIZE = 32


class Predictor:
    """A network with its schema, ready to predict and to be evaluated.

    Args:
        network: on its device, in eval mode.
        schema: what its outputs are.
        backbone: id of the backbone.
        card: of its model file; None for a backbone as it was published.
    """

    def __init__(
        self, network: Network, schema: Schema, backbone: str, card: ModelCard | None = None
    ) -> None:
        self.network = network
        self.schema = schema
        self.backbone = backbone
        self.card = card
        network.module.eval()

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the outputs; empty for a task without classes."""
        return self.schema.classes

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.network.task.name

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
        self,
        images: Any | Iterable[Any],
        top: int = 5,
        batch_size: int = BATCH_SIZE,
        out: str | Path | None = None,
    ) -> list[dict[str, Any]]:
        """Predict images.

        Args:
            images: paths, bytes, open files, PIL images or uint8 arrays `[height, width, 3]`; one
                or many.
            top: how many classes to give for each, where a prediction ranks classes.
            batch_size: images per forward pass.
            out: a folder for files that belong to predictions, such as masks; None writes none.

        Returns:
            For each image `path` and `predictions`, as the task makes them (classification:
            `[{class, probability}]`, most probable first), or `path` and `error` where the image
            cannot be read.

        Raises:
            UsageError: `top` is not positive.
            EnvironmentProblem: memory ran out, or a file cannot be written.
        """
        if top < 1:
            raise UsageError(f"top is {top}", "give at least 1")
        folder = None if out is None else Path(out)
        answers: list[dict[str, Any]] = []
        waiting: list[tuple[dict[str, Any], torch.Tensor, SourceImage]] = []
        for image in as_many(images):
            answer: dict[str, Any] = {"path": name_of(image)}
            answers.append(answer)
            try:
                prepared = prepare_image(image, self.preprocess)
            except DataError as error:
                answer["error"] = str(error)
                continue
            source = SourceImage(answer["path"], prepared.size, self.preprocess, prepared.open)
            waiting.append((answer, prepared.pixels, source))
            if len(waiting) == batch_size:
                self._answer(waiting, top, folder)
                waiting = []
        self._answer(waiting, top, folder)
        return answers

    def _answer(
        self,
        waiting: list[tuple[dict[str, Any], torch.Tensor, SourceImage]],
        top: int,
        out: Path | None,
    ) -> None:
        if not waiting:
            return
        answers, pixels, sources = zip(*waiting, strict=True)
        with inference_mode_of(self.module), memory_errors("predicting"):
            outputs = self.network.forward(torch.stack(pixels))
            predictions = self.network.task.predict(outputs, sources, self.schema, top=top, out=out)
        for answer, prediction in zip(answers, predictions, strict=True):
            answer.update(prediction)

    def features(self, images: Any, batch_size: int = BATCH_SIZE) -> torch.Tensor:
        """Return what the main head reads of images; see `zoo.features`."""
        return extract_features(self.network, images, batch_size)

    def evaluate(
        self,
        data: Any = None,
        split: str | None = None,
        batch_size: int = BATCH_SIZE,
        workers: int = 0,
        bad_images: str = "error",
        metrics: UserMetrics | None = None,
    ) -> dict[str, Any]:
        """Measure the network on a data source, its targets matched to the schema by name.

        Args:
            data: as `zoo.finetune` takes it; None for the embedded set. A `Dataset` or a
                `DataLoader` is measured whole, its labels being positions in `classes`.
            split: which split; by default `test` where there is one, else `val`. Of the very
                folder that it was trained on, `val` is what training held out.
            batch_size: images per forward pass.
            workers: processes that decode.
            bad_images: `error` or `skip`.
            metrics: further ones by name, each called with all outputs and targets.

        Returns:
            `split`, `images`, `loss`, what else the task's metric reports, and `bad_images` by
            path.

        Raises:
            DataError: the data cannot be used, has a class that the model has not, or holds an
                image that cannot be read.
        """
        task = self.network.task
        chosen = self._trained_split(data, split) or task.open_split(data, self.schema, split)
        device = self.network.device
        transform = task.transform(self.preprocess)
        reader = ImageReader(transform, device, batch_size, workers, bad_images)
        metric = task.metric(self.schema, device, metrics)
        with memory_errors("evaluating"):
            evaluate_split(self.network, chosen, reader, metric)
        values = metric.report()
        if not values["images"]:
            raise DataError(f"no image of the {chosen.name} split can be read")
        return {"split": chosen.name, **values, "bad_images": dict(sorted(reader.bad.items()))}

    def _trained_split(self, data: Any, split: str | None) -> Split | None:
        """Return the split that training itself made of these images; None of any others."""
        if self.card is None or not {"seed", "val_fraction"} <= self.card.settings.keys():
            return None
        if not isinstance(data, str | Path | None):
            return None  # a Dataset's fingerprint does not tell its images from another's
        settings = self.card.settings
        try:
            opened = self.network.task.open_data(
                data, seed=settings["seed"], val_fraction=settings["val_fraction"]
            )
        except (ZooError, TypeError, ValueError):
            return None
        if opened.fingerprint != self.card.data.get("fingerprint") or opened.schema != self.schema:
            return None
        wanted = split or ("test" if "test" in opened.splits else "val")
        return opened.splits.get(SPLITS.get(wanted.lower(), wanted))
