"""Predict and evaluate with a trained model or a pretrained backbone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from zoo.data.images import as_many, name_of, prepare_image
from zoo.data.names import split_of
from zoo.data.split import Split
from zoo.engine.features.extract import extract_features
from zoo.engine.features.finite import check_predictions
from zoo.engine.runtime.device import environment_errors
from zoo.engine.runtime.evaluate import evaluate_split
from zoo.engine.runtime.network import Network
from zoo.engine.runtime.reader import ImageReader
from zoo.errors import DataError, UsageError, WeightsError, ZooError
from zoo.modelfile import ModelCard
from zoo.models.freeze import inference_mode_of
from zoo.options import OPTIONS
from zoo.options.columns import Columns, read_columns
from zoo.spec import Preprocess
from zoo.tasks.base import Schema, SourceImage, UserMetrics, supported_options

BATCH_SIZE = 32

# The result of an image, its pixels `[channels, height, width]`, and the image itself.
Pending = tuple[dict[str, Any], torch.Tensor, SourceImage]


class Predictor:
    """A network and its schema, for prediction and evaluation.

    Args:
        network: on its device, in eval mode.
        schema: of its outputs.
        backbone: id of the backbone.
        card: of its model file; None for a pretrained backbone.
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
        """Transform of images into inputs of the network."""
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
            top: number of classes per image, if the task ranks classes.
            batch_size: images per forward pass.
            out: folder for files of the predictions, such as masks; None to write none.

        Returns:
            For each image `path` and `predictions` of the task (classification:
            `[{class, probability}]`, most probable first), or `path` and `error` if it cannot be
            read.

        Raises:
            UsageError: `top` is not positive.
            EnvironmentProblem: memory ran out, or a file cannot be written.
        """
        if top < 1:
            raise UsageError(f"top is {top}", "give at least 1")
        folder = None if out is None else Path(out)
        results: list[dict[str, Any]] = []
        batch: list[Pending] = []
        for image in as_many(images):
            result: dict[str, Any] = {"path": name_of(image)}
            results.append(result)
            try:
                prepared = prepare_image(image, self.preprocess)
            except DataError as error:
                result["error"] = str(error)
                continue
            source = SourceImage(result["path"], prepared.size, self.preprocess, prepared.open)
            batch.append((result, prepared.pixels, source))
            if len(batch) == batch_size:
                self._predict_batch(batch, top, folder)
                batch = []
        self._predict_batch(batch, top, folder)
        return results

    def _predict_batch(self, batch: list[Pending], top: int, out: Path | None) -> None:
        """Add the predictions of a batch to its results."""
        if not batch:
            return
        results, pixels, sources = zip(*batch, strict=True)
        with inference_mode_of(self.module), environment_errors("predicting"):
            inputs = torch.stack(pixels)
            outputs = self.network.forward(inputs)
            check_predictions(self.network, inputs, outputs.main)
            predictions = self.network.task.predict(outputs, sources, self.schema, top=top, out=out)
        for result, prediction in zip(results, predictions, strict=True):
            result.update(prediction)

    def features(self, images: Any, batch_size: int = BATCH_SIZE) -> torch.Tensor:
        """Return the inputs of the main head; see `zoo.features`."""
        return extract_features(self.network, images, batch_size)

    def evaluate(
        self,
        data: Any = None,
        split: str | None = None,
        batch_size: int = BATCH_SIZE,
        workers: int = 0,
        bad_images: str = "error",
        metrics: UserMetrics | None = None,
        columns: Columns | str | Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Evaluate the network on a data source, with targets matched to the schema by name.

        Args:
            data: as for `zoo.finetune`; None for the embedded data set. A `Dataset` or
                `DataLoader` is evaluated whole; its labels are indices of `classes`.
            split: by default `test` if there is one, else `val`. On the training data, `val` is
                the validation split of the training.
            batch_size: images per forward pass.
            workers: number of decoding processes.
            bad_images: `error` or `skip`.
            metrics: additional ones by name, called with all outputs and targets.
            columns: of a table, as for `zoo.finetune`.

        Returns:
            `split`, `images`, `loss`, further values of the task's metric, and `bad_images` by
            path.

        Raises:
            DataError: the data cannot be used, has a class unknown to the model, or contains an
                unreadable image.
        """
        task = self.network.task
        parsed = None if columns is None else read_columns(columns)
        given = supported_options(task, columns=parsed)
        chosen = self._trained_split(data, split, given)
        chosen = chosen or task.open_split(data, self.schema, split, **given)
        device = self.network.device
        transform = task.transform(self.preprocess)
        reader = ImageReader(transform, device, batch_size, workers, bad_images)
        metric = task.metric(self.schema, device, metrics)
        with environment_errors("evaluating"):
            evaluate_split(self.network, chosen, reader, metric)
        values = metric.report()
        if not values["images"]:
            raise DataError(f"no image of the {chosen.name} split can be read")
        if not math.isfinite(values["loss"]):
            message = f"the loss of the {chosen.name} split is {values['loss']}"
            raise WeightsError(message, "`zoo predict` of one image names the layer that causes it")
        return {"split": chosen.name, **values, "bad_images": dict(sorted(reader.bad.items()))}

    def _trained_split(self, data: Any, split: str | None, given: dict[str, Any]) -> Split | None:
        """Return the split of the training, if the data is that of the training; else None."""
        if self.card is None or not {"seed", "val_fraction"} <= self.card.settings.keys():
            return None
        if not isinstance(data, str | Path | None):
            return None  # the fingerprint of a Dataset does not identify its images
        settings = self.card.settings
        try:
            opened = self.network.task.open_data(
                data,
                seed=settings["seed"],
                val_fraction=settings["val_fraction"],
                classes=len(self.schema.classes) or None,
                **{**_data_options(settings.get("data", {})), **given},
            )
        except (ZooError, TypeError, ValueError):
            return None
        if opened.fingerprint != self.card.data.get("fingerprint") or opened.schema != self.schema:
            return None
        wanted = split or ("test" if "test" in opened.splits else "val")
        return opened.splits.get(split_of(wanted) or wanted)


def _data_options(stored: Mapping[str, str]) -> dict[str, Any]:
    """Return the options of the data of a training from their text."""
    options = (option for option in OPTIONS if option.name in stored)
    return {option.name: option.read(stored[option.name]) for option in options}
