"""The interface of tasks.

A task is registered by name (`zoo_register_tasks`); its class is instantiated once and is
stateless. It defines data, targets, loss, metrics and predictions, and how a network's output is
read. Freezing, heads, phases, checkpoints and files belong to the engine, which treats every task
alike and depends on this module only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.data.all_images import AllImages, open_all
from zoo.data.dataset import SampleTransform
from zoo.data.schema import Schema
from zoo.data.split import ImageData, Split
from zoo.errors import BrokenBackbone, BrokenPlugin, UsageError
from zoo.models.plugin_errors import plugin_errors
from zoo.options import Augmentation
from zoo.options.class_weights import ClassWeights
from zoo.options.option import raise_together
from zoo.registry.plugin_code import plugin_code
from zoo.spec import Backbone, Head, Preprocess, Task, Weights, resolve_target
from zoo.tasks.exports import ExportingTask
from zoo.tasks.metric import Direction, Metric, Outputs, Ranking, SampleResults, loss_parts
from zoo.tasks.printing import PrintingTask
from zoo.tasks.published import published_classes
from zoo.tasks.reports import Evidence, ReportingTask, RunResults
from zoo.tasks.results import SourceImage, Table
from zoo.tasks.user_functions import Criterion, UserMetrics, function_name
from zoo.tasks.weighted_loss import LogisticProbe, WeightedCrossEntropy

__all__ = [
    "BaseTask",
    "Criterion",
    "Direction",
    "Evidence",
    "LogisticProbe",
    "Metric",
    "Outputs",
    "Ranking",
    "RunResults",
    "SampleResults",
    "SampleTransform",
    "Schema",
    "SourceImage",
    "Table",
    "UserMetrics",
    "load_task",
    "loss_parts",
    "supported_options",
]


class BaseTask(ReportingTask, ExportingTask, PrintingTask, ABC):
    """Base class of tasks; stateless.

    Attributes:
        name: name of the task in descriptions of backbones.
        columns: metrics recorded in `history.csv`, the model file and every epoch event.
        directions: metrics that can rank epochs, and whether a higher or a lower value is better;
            first the one that `Metric.score` ranks by.
        labels: terminal labels of the metrics that are printed after each epoch, by name.
        reserved: names that user metrics cannot have.
        loss_label: name of the task's own loss in the plan.
        schema_type: class of its schemas.
        data_options: further options of a training that `open_data` takes by name: `columns`,
            `group`, `group_by`.
    """

    name: str
    columns: tuple[str, ...] = ("loss",)
    directions: Mapping[str, Direction] = {"loss": "min"}
    labels: Mapping[str, str] = {"loss": "loss"}
    reserved: tuple[str, ...] = ("loss", "images")
    loss_label: str = "loss"
    schema_type: type[Schema] = Schema
    data_options: tuple[str, ...] = ()

    # Data

    @abstractmethod
    def open_data(
        self, source: Any, *, seed: int = 0, val_fraction: float = 0.2, classes: int | None = None
    ) -> ImageData:
        """Index a data source and split it for training.

        Args:
            source: the value of `--data` or `data=`; None for the demonstration set.
            seed: for the random validation split, if the source has none.
            val_fraction: fraction of the samples in that split.
            classes: number of classes, for a source without class names.

        Returns:
            The splits and their schema.

        Raises:
            DataError: the source cannot be used for training.
            UsageError: the task has no demonstration set, or does not support the kind of source.
        """

    @abstractmethod
    def open_split(self, source: Any, schema: Schema, split: str | None = None) -> Split:
        """Index one split of a data source, for evaluation.

        Args:
            source: as for `open_data`.
            schema: of the model; targets are matched to it by name.
            split: name; None for the first of `test` and `val` that exists, else all samples.

        Raises:
            DataError: there is no such split, or its targets do not match the schema.
        """

    def open_all(self, source: Any, *, classes: int | None = None, **options: Any) -> AllImages:
        """Index the images of all splits of a source, for `zoo embed` and `zoo rank`.

        Args:
            source: as for `open_data`.
            classes: as for `open_data`.
            options: of `data_options`, by name; None for those that are not given.

        Raises:
            UsageError: the task does not support an option.
        """
        given = {"classes": classes, **supported_options(self, **options)}
        return open_all(source, partial(self.open_data, **given))

    def recognizes(self, source: str | Path) -> bool:
        """Whether a path has a layout that no other task reads, for `zoo check`."""
        return False

    def class_counts(self, split: Split, schema: Schema) -> dict[str, int]:
        """Return the number of images of each class; empty where targets are not classes."""
        return {}

    def schema_from_dict(self, plain: Mapping[str, Any]) -> Schema:
        """Restore a schema from a model file.

        Raises:
            TypeError, ValueError: it is not a schema of this task.
        """
        return self.schema_type.from_dict(plain)

    def published_schema(self, backbone: Backbone, weights: Weights) -> Schema:
        """Return the schema of published weights, to predict without training.

        Raises:
            UsageError: they have no head, no class names, or the head of another task.
        """
        if backbone.published.task != self.name:
            message = f"{backbone.id} {weights.tag} is published for {backbone.published.task}"
            raise UsageError(message, f"`zoo finetune {backbone.id}` gives it a head of your own")
        return Schema(published_classes(backbone, weights))

    def transform(self, preprocess: Preprocess) -> SampleTransform:
        """Return the transform of an image and its target to tensors."""
        return SampleTransform(preprocess)

    def example_data(self, preprocess: Preprocess, count: int, seed: int) -> ImageData:
        """Return images of noise with targets, for the conformance checks.

        Args:
            preprocess: size and channels of the images.
            count: size of the `train` split; `val` has at least one image.
            seed: equal seeds return equal data.

        Raises:
            UsageError: not implemented, so the task cannot be checked.
        """
        hint = f"implement {type(self).__name__}.example_data"
        raise UsageError(f"the task {self.name} has no example data", hint)

    def check_augmentation(self, augment: Augmentation | None, views: int | None) -> None:
        """Reject augmentations that the task does not support.

        Args:
            augment: the requested augmentation; None for none.
            views: requested number of cached augmented views per image; None for the default.

        Raises:
            UsageError: the augmentation is not supported.
        """
        return None

    # Network

    def read_output(
        self, output: Any, heads: Sequence[Head], training: bool, previous: int | None = None
    ) -> Outputs:
        """Read the output of a network; by default a tensor `[samples, outputs]`.

        Args:
            output: of the network.
            heads: of its backbone.
            training: whether auxiliary outputs are used for the loss.
            previous: number of outputs of the main head before its replacement, which identifies
                heads that were not replaced; None if it was not replaced.

        Raises:
            BrokenBackbone: the output is not that of a network of this task.
        """
        if not isinstance(output, Tensor) or output.ndim != 2:
            shape = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
            message = f"the network returned {shape}, but {self.name} requires [samples, outputs]"
            raise BrokenBackbone(message)
        return Outputs(output)

    def combine_heads(
        self, outputs: Mapping[str, tuple[Head, Tensor]], size: tuple[int, int], training: bool
    ) -> Outputs:
        """Combine the outputs of the heads to the result of `read_output` for the whole network.

        The engine compares both on a batch before it trains heads on cached features.

        Args:
            outputs: heads and their outputs by module path, the main head first.
            size: height and width of the network's input in pixels.
            training: whether auxiliary outputs are used for the loss.
        """
        (_, main), *others = outputs.values()
        auxiliary = tuple((output, head.loss_weight) for head, output in others)
        return Outputs(main, auxiliary if training else ())

    def head_outputs_differ(self, heads: Sequence[Head]) -> str | None:
        """Return why `combine_heads` cannot reproduce the network's output, or None."""
        return None

    def check_outputs(self, outputs: Outputs) -> None:
        """Validate the outputs of the first training batch.

        Raises:
            BrokenBackbone: the loss cannot be computed from them.
        """
        return None

    # Learning

    @abstractmethod
    def loss(
        self, outputs: Outputs, targets: Tensor, criterion: Criterion | None = None
    ) -> dict[str, Tensor]:
        """Return the loss terms of a batch by name; their sum is minimised.

        Args:
            outputs: of the network.
            targets: as collated, on the device of the outputs.
            criterion: loss function of the user; None for the task's.

        Raises:
            UsageError: the user's loss function fails.
        """

    def loss_name(self, criterion: Criterion | None) -> str:
        """Return the name of the loss in the plan."""
        return self.loss_label if criterion is None else function_name(criterion)

    def count(self, targets: Tensor) -> int:
        """Return the number of items that the loss of a batch is the mean of: samples, or pixels.

        Micro-batches are weighted by it, so that they sum to the gradient of the batch.
        """
        return len(targets)

    def weighted_loss(
        self, data: ImageData, class_weights: ClassWeights | None, label_smoothing: float
    ) -> WeightedCrossEntropy:
        """Return the task's loss with class weights or label smoothing, as a criterion of `loss`.

        Args:
            data: of the training; weights may depend on the frequencies of its classes.
            class_weights: as given; None for equal weights.
            label_smoothing: share of a target that is spread over all classes.

        Raises:
            UsageError: the task's targets are not classes, or a name is not one of them.
        """
        flag = "--label-smoothing" if class_weights is None else "--class-weights"
        raise UsageError(f"{flag}: the targets of {self.name} are not classes", "omit it")

    def loss_divisor(self, targets: Tensor, criterion: Criterion | None) -> float:
        """Return what the loss of a batch is divided by: items, or the sum of their weights."""
        if isinstance(criterion, WeightedCrossEntropy):
            return criterion.total_weight(targets)
        return self.count(targets)

    @abstractmethod
    def metric(
        self, schema: Schema, device: torch.device, further: UserMetrics | None = None
    ) -> Metric:
        """Return a new metric.

        Args:
            schema: of the data.
            device: of outputs and targets.
            further: user metrics by name, called with all outputs and targets of a split.
        """

    def probe(self, criterion: Criterion | None) -> LogisticProbe | str:
        """Return how a linear head is solved for, or why it must be trained in epochs."""
        return f"{self.name} has no direct solution for a head"

    def split_targets(self, split: Split, transform: SampleTransform) -> Tensor:
        """Return the targets of a split, `[samples, ...]`, for training on cached features.

        Args:
            split: a deterministic split.
            transform: of the task.
        """
        return transform.collate(list(split.targets))

    def target_bytes(self, preprocess: Preprocess) -> int:
        """Return the size in bytes of the targets of one sample in `split_targets`."""
        return 8

    def chance(self, schema: Schema) -> float | None:
        """Return the expected metric of guessing on any data, or None if undefined.

        A metric whose value depends on the split reports it as `chance` instead.
        """
        return None

    # Use

    @abstractmethod
    def predict(
        self,
        outputs: Outputs,
        images: Sequence[SourceImage],
        schema: Schema,
        *,
        top: int = 5,
        out: Path | None = None,
    ) -> list[dict[str, Any]]:
        """Return a prediction for each image, as JSON-serializable data.

        Args:
            outputs: of the network, `[images, ...]`.
            images: the sources, in the order of the outputs.
            schema: of the model.
            top: number of alternatives, for tasks that have alternatives.
            out: folder for files of predictions, such as masks; None writes none.

        Returns:
            For each image a mapping with the key `predictions`, and keys of the task.
        """


def supported_options(task: BaseTask, **options: Any) -> dict[str, Any]:
    """Return the given ones of further options of the data, as arguments of `open_data`.

    Args:
        task: that opens the data.
        options: by name; None for those that are not given.

    Raises:
        UsageError: the task does not support some; lists all.
    """
    given = {name: value for name, value in options.items() if value is not None}
    raise_together(
        [
            UsageError(f"--{name.replace('_', '-')} does not apply to {task.name}", "omit it")
            for name in given
            if name not in task.data_options
        ]
    )
    return given


def load_task(task: Task) -> BaseTask:
    """Import and instantiate the class of a registered task.

    Raises:
        BrokenPlugin: it cannot be imported, or is not a `BaseTask`.
    """
    with (
        plugin_code(task.plugin, f"the task {task.name!r}"),
        plugin_errors(f"task {task.name!r} cannot be instantiated"),
    ):
        target = resolve_target(task.target, f"task {task.name!r}")
        instance = target()
    if not isinstance(instance, BaseTask):
        message = f"{task.target} returns a {type(instance).__name__}, not a BaseTask"
        raise BrokenPlugin(
            message, f"it is registered by plugin {task.plugin or 'of unknown name'}"
        )
    return instance
