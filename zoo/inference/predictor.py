"""Predict and evaluate with a trained model or a pretrained backbone."""

from __future__ import annotations

import math
import pickle
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast, overload

import torch
from torch import nn

from zoo.data.bad_images import no_readable_image
from zoo.data.find import count_images, in_folders
from zoo.data.images import PreparedImage, as_many
from zoo.data.names import split_of
from zoo.data.split import Split
from zoo.data.value_range import measure_ranges
from zoo.engine.backends.choice import AUTO, TORCH, pays_from
from zoo.engine.backends.engine import Inputs
from zoo.engine.features.evaluate import evaluate_on_engine
from zoo.engine.features.finite import check_predictions
from zoo.engine.features.hooks import run_heads
from zoo.engine.runtime.device import environment_errors
from zoo.engine.runtime.evaluate import evaluate_split
from zoo.engine.runtime.network import Network
from zoo.engine.runtime.reader import ImageReader
from zoo.engine.runtime.stream import FailedImage, read_images
from zoo.errors import UsageError, WeightsError, ZooError, one_line
from zoo.inference.engines import PredictedBatch, head_inputs, split_engine
from zoo.inference.explain import Explainer
from zoo.inference.extract import extract_features
from zoo.inference.least_probability import add_answers
from zoo.modelfile import ModelCard
from zoo.models.freeze import inference_mode_of
from zoo.options import OPTIONS
from zoo.options.arguments import check_arguments, names_arguments
from zoo.options.columns import read_columns
from zoo.options.given import BadImages, FilePath, Images, UserColumns
from zoo.registry.plugin_scope import Selection, current
from zoo.registry.registry import load_registry
from zoo.results import Metrics, Prediction
from zoo.spec import Preprocess
from zoo.tasks.base import Metric, Outputs, Schema, SourceImage, UserMetrics, supported_options

BATCH_SIZE = 32


@dataclass(frozen=True)
class _Request:
    """What to return and write for each image.

    Args:
        top: number of classes.
        out: folder for files of the predictions; None to write none.
        explainer: writes activation maps; None to write none.
        min_probability: of an answer; None for no answers.
    """

    top: int
    out: Path | None
    explainer: Explainer | None
    min_probability: float | None


class Predictor:
    """A network and its schema, for prediction and evaluation.

    Args:
        network: on its device, in eval mode.
        schema: of its outputs.
        backbone: id of the backbone.
        card: of its model file; None for a pretrained backbone.
        engine: of the features before its heads, `auto` or the name of one.

    Attributes:
        incomplete: names of predicted JPEG files that lack their last bytes.
    """

    def __init__(
        self,
        network: Network,
        schema: Schema,
        backbone: str,
        card: ModelCard | None = None,
        engine: str = AUTO,
    ) -> None:
        self.network = network
        self.schema = schema
        self.backbone = backbone
        self.card = card
        self.engine = engine
        self.incomplete: set[str] = set()
        network.module.eval()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the network itself, for another process; what its engines compiled is left out.

        Raises:
            UsageError: the network cannot be pickled.
        """
        try:
            state = pickle.dumps(self.__dict__)
        except Exception as error:  # of the network's own classes
            hint = "load it in each process by zoo.load"
            message = f"{self.backbone} cannot be pickled: {one_line(error)}"
            raise UsageError(message, hint) from error
        return _unpickled, (current().selection, state)

    def __repr__(self) -> str:
        return f"Model({self.backbone!r}, {len(self.classes)} classes, on {self.network.device})"

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

    @names_arguments
    def predict(
        self,
        images: Images,
        top: int = 5,
        batch_size: int = BATCH_SIZE,
        out: FilePath | None = None,
        *,
        explain: FilePath | bool | None = False,
        min_probability: float | None = None,
    ) -> list[Prediction]:
        """Predict images.

        Args:
            images: one or many: paths, where a folder stands for the images in it; bytes, open
                files or PIL images; uint8 arrays `[height, width]` or `[height, width, 3]`; uint8
                tensors `[3, height, width]`, or float tensors as returned by `zoo.transform`; a
                batch of either, with a dimension more; or an iterable, such as a generator.
            top: number of classes per image, if the task ranks classes.
            batch_size: images per forward pass.
            out: folder for files of the predictions, such as masks; None to write none.
            explain: whether to write an image with the activation map of the predicted class beside
                each image, as `IMAGE.explain.png`; or the folder to write it into.
            min_probability: of an answer, in 0..1; None for no answers.

        Returns:
            For each image `path` and `predictions` of the task (classification:
            `[{class, probability}]`, most probable first), or `path` and `error` if it cannot be
            read; with `explain`, `explanation`: the path of the written image, None for an image
            without a file; with `min_probability`, `answer`: the most probable class, None where it
            is less probable.

        Raises:
            UsageError: `top` is not positive, `images` is neither an image nor iterable, or the
                network has no spatial map to explain.
            EnvironmentProblem: memory ran out, or a file cannot be written.
        """
        given = images, top, batch_size, out
        return list(self.stream(*given, explain=explain, min_probability=min_probability))

    @names_arguments
    def stream(
        self,
        images: Images,
        top: int = 5,
        batch_size: int = BATCH_SIZE,
        out: FilePath | None = None,
        *,
        explain: FilePath | bool | None = False,
        min_probability: float | None = None,
    ) -> Iterator[Prediction]:
        """Predict images as `predict` does, and yield each prediction as its batch is done.

        Images are taken from the iterable as they are needed, so memory does not depend on their
        number.
        """
        numbers = {"top": top, "batch_size": batch_size}
        check_arguments(*numbers, **numbers, min_probability=min_probability, out=out)
        folder = None if out is None else Path(out)
        given = as_many(images)
        count = count_images(given, pays_from(self.network))
        every = in_folders(given)
        batches = read_images(every, self.preprocess, self.network.device, batch_size)
        explainer = None if explain in (None, False) else Explainer(self.network, explain)
        request = _Request(top, folder, explainer, min_probability)
        return self._predict_batches(batches, batch_size, count, request)

    @names_arguments
    def _predict_batches(
        self,
        batches: Iterable[PredictedBatch],
        batch_size: int,
        count: int | None,
        request: _Request,
    ) -> Iterator[Prediction]:
        """Yield the prediction or the error of each image."""
        predictions: list[Any] = []
        for group, inputs in head_inputs(
            self.network, self.card, self.engine, batches, batch_size, count
        ):
            if isinstance(group, list):  # the whole batch, after its groups
                remaining = iter(predictions)
                answers = [
                    {"path": each.name, "error": str(each.error)}
                    if isinstance(each, FailedImage)
                    else {"path": each.name, **next(remaining)}
                    for each in group
                ]
                predictions = []
                yield from cast(list[Prediction], answers)  # of the task, which may be a plugin's
            else:
                predictions += self._predict_group(*group, inputs, request)

    def _predict_group(
        self,
        images: Sequence[PreparedImage],
        pixels: torch.Tensor,
        inputs: Inputs | None,
        request: _Request,
    ) -> Iterable[Any]:
        """Return the predictions of images of one size, of the inputs of the heads if given."""
        self.incomplete.update(each.name for each in images if each.incomplete)
        sources = [SourceImage(each.name, each.size, each.preprocess, each.open) for each in images]
        with inference_mode_of(self.module), environment_errors("predicting"):
            outputs = (
                self.network.forward(pixels)
                if inputs is None
                else run_heads(self.network, inputs, training=False)
            )
            check_predictions(self.network, pixels, outputs.main)
            if self.card is not None and self.card.temperature is not None:
                outputs = Outputs(outputs.main / self.card.temperature)
            explainer = request.explainer
            explained = None if explainer is None else explainer.write(images, pixels, outputs)
            task = self.network.task
            answers = task.predict(outputs, sources, self.schema, top=request.top, out=request.out)
        if request.min_probability is not None:
            answers = add_answers(answers, request.min_probability, task.name)
        if explained is None:
            return answers
        pairs = zip(answers, explained, strict=True)
        return [{**answer, "explanation": path and str(path)} for answer, path in pairs]

    @names_arguments
    def features(self, images: Images, batch_size: int = BATCH_SIZE) -> torch.Tensor:
        """Return the inputs of the main head; see `zoo.features`."""
        check_arguments("batch_size", batch_size=batch_size)
        return extract_features(self.network, images, batch_size, self.engine, self.card)

    @overload
    def evaluate(
        self,
        data: Any = None,
        split: str | None = None,
        batch_size: int = BATCH_SIZE,
        workers: int | None = None,
        bad_images: BadImages = "error",
        metrics: None = None,
        columns: UserColumns | None = None,
    ) -> Metrics: ...

    @overload
    def evaluate(
        self,
        data: Any = None,
        split: str | None = None,
        batch_size: int = BATCH_SIZE,
        workers: int | None = None,
        bad_images: BadImages = "error",
        metrics: UserMetrics | None = None,
        columns: UserColumns | None = None,
    ) -> dict[str, Any]: ...

    @names_arguments
    def evaluate(
        self,
        data: Any = None,
        split: str | None = None,
        batch_size: int = BATCH_SIZE,
        workers: int | None = None,
        bad_images: BadImages = "error",
        metrics: UserMetrics | None = None,
        columns: UserColumns | None = None,
    ) -> Metrics | dict[str, Any]:
        """Evaluate the network on a data source, with targets matched to the schema by name.

        Args:
            data: as for `zoo.finetune`; None for the embedded data set. A `Dataset` or
                `DataLoader` is evaluated whole; its labels are indices of `classes`.
            split: by default `test` if there is one, else `val`. On the training data, `val` is
                the validation split of the training; without one, it is `train`.
            batch_size: images per forward pass.
            workers: number of decoding processes; None to choose it.
            bad_images: `error` or `skip`.
            metrics: additional ones by name, called with all outputs and targets.
            columns: of a table, as for `zoo.finetune`.

        Returns:
            `split`, `images`, `loss`, further values of the task's metric, `engine` that computed
            the features, `bad_images` by path, and `incomplete_images`: paths of JPEG files that
            lack their last bytes.

        Raises:
            DataError: the data cannot be used, has a class unknown to the model, or contains an
                unreadable image.
        """
        given = {"data": data, "workers": workers, "bad_images": bad_images}
        check_arguments("batch_size", batch_size=batch_size, **given)
        task = self.network.task
        parsed = None if columns is None else read_columns(columns)
        read = supported_options(task, columns=parsed)
        chosen = self._trained_split(data, split, read)
        chosen = chosen or task.open_split(data, self.schema, split, **read)
        device = self.network.device
        preprocess = self.preprocess
        if self.card is None:
            # Published weights know no range of values; it is that of the data.
            preprocess = replace(preprocess, ranges=measure_ranges([chosen]))
        transform = task.transform(preprocess)
        reader = ImageReader(transform, device, batch_size, workers, bad_images)
        metric = task.metric(self.schema, device, metrics)
        with environment_errors("evaluating"):
            engine = self._evaluate(chosen, reader, metric)
        values = metric.report()
        if not values["images"]:
            raise no_readable_image(f"the {chosen.name} split")
        if not math.isfinite(values["loss"]):
            message = f"the loss of the {chosen.name} split is {values['loss']}"
            raise WeightsError(message, "`zoo predict` of one image names the layer that causes it")
        return {
            "split": chosen.name,
            **values,
            "engine": engine,
            "bad_images": dict(sorted(reader.bad.items())),
            "incomplete_images": sorted(reader.incomplete),
        }

    def _evaluate(self, split: Split, reader: ImageReader, metric: Metric) -> str:
        """Update a metric by a split, through the engine that the rule chooses; return its name."""
        engine = split_engine(self.network, self.card, self.engine, split, reader)
        if engine is None:
            evaluate_split(self.network, split, reader, metric)
            return TORCH
        evaluate_on_engine(engine, split, reader, metric)
        return engine.name

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
        whole = "val" if "val" in opened.splits else "train"
        wanted = split or ("test" if "test" in opened.splits else whole)
        return opened.splits.get(split_of(wanted) or wanted)


def _unpickled(selection: Selection, state: bytes) -> Predictor:
    """Return a pickled predictor, after the files of plugins that its classes may be in."""
    if selection.plugins:
        load_registry(selection.without, selection.file, selection.plugins)
    predictor = Predictor.__new__(Predictor)
    predictor.__dict__.update(pickle.loads(state))
    return predictor


def _data_options(stored: Mapping[str, str]) -> dict[str, Any]:
    """Return the options of the data of a training from their text."""
    options = (option for option in OPTIONS if option.name in stored)
    return {option.name: option.read(stored[option.name]) for option in options}
