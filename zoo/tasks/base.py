"""What a task decides, and what every implementation of one must offer.

A task is registered by name (`zoo_register_tasks`); the class behind it is instantiated once and
holds no state. It decides what the targets are, what a network's output means, what is minimised,
what is measured and what a prediction is. It decides nothing about freezing, heads, phases,
checkpoints or files: the engine treats every task alike, and knows only this module.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.data.all_images import AllImages, open_all
from zoo.data.dataset import SampleTransform
from zoo.data.schema import Schema
from zoo.data.split import ImageData, Split
from zoo.errors import BrokenBackbone, BrokenPlugin, UsageError
from zoo.models.plugin_errors import guard
from zoo.options import Augmentation
from zoo.spec import Backbone, Head, Preprocess, Task, Weights, resolve_target

__all__ = [
    "BaseTask",
    "LogisticProbe",
    "Metric",
    "Outputs",
    "SampleTransform",
    "Schema",
    "SourceImage",
    "Table",
    "load_task",
    "loss_parts",
]

Criterion = Callable[[Tensor, Tensor], Tensor]
UserMetrics = Mapping[str, Callable[[Tensor, Tensor], Any]]


@dataclass(frozen=True)
class Outputs:
    """What a network returned, as its task reads it.

    Args:
        main: `[samples, ...]`, from which predictions come.
        auxiliary: outputs of further heads that only the loss uses, each with its weight.
    """

    main: Tensor
    auxiliary: tuple[tuple[Tensor, float], ...] = field(default=())

    def narrow(self, count: int) -> Outputs:
        """Return the outputs of the first `count` samples."""
        auxiliary = tuple((each[:count], weight) for each, weight in self.auxiliary)
        return Outputs(self.main[:count], auxiliary)


class Metric(ABC):
    """Measures a split: accumulates over batches, merges over processes, computes at the end.

    The state is what a subclass puts into `sums` (tensors that add up) and `rows` (lists that
    concatenate), so that no batch size and no number of processes can change the result.

    Attributes:
        sums: tensors by name, added up over processes.
        rows: lists of plain data or CPU tensors by name, concatenated over processes.
    """

    def __init__(self) -> None:
        self.sums: dict[str, Tensor] = {}
        self.rows: dict[str, list[Any]] = {}

    @abstractmethod
    def update(self, outputs: Outputs, targets: Tensor) -> None:
        """Accumulate a batch."""

    @abstractmethod
    def compute(self) -> dict[str, float]:
        """Return the numbers of all that was accumulated; `loss` and `images` are among them."""

    def score(self, values: Mapping[str, float]) -> tuple[float, ...]:
        """Return what ranks epochs, the highest best, from what `compute` returned."""
        return (-values["loss"],)

    def report(self) -> dict[str, Any]:
        """Return what `compute` does and details, as plain data for `run.json`."""
        return dict(self.compute())

    def merge(self, other: Metric) -> None:
        """Accumulate what another metric of the same kind has accumulated."""
        for name, tensor in other.sums.items():
            self.sums[name] += tensor.to(self.sums[name].device)
        for name, items in other.rows.items():
            self.rows[name].extend(items)

    def state_dict(self) -> dict[str, Any]:
        """Return the state, for a checkpoint."""
        sums = {name: tensor.clone() for name, tensor in self.sums.items()}
        return {"sums": sums, "rows": {name: list(items) for name, items in self.rows.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        for name, tensor in state["sums"].items():
            self.sums[name].copy_(tensor)
        self.rows = {name: list(items) for name, items in state["rows"].items()}


@dataclass(frozen=True)
class LogisticProbe:
    """A head whose optimum multinomial logistic regression on its features finds.

    Args:
        class_weight: `[classes]`, weights of the classes in the loss; None for equal ones.
    """

    class_weight: Tensor | None = None


@dataclass(frozen=True)
class Table:
    """A table for the terminal.

    Args:
        header: names of the columns.
        rows: cells as text.
        right: names of the columns that are aligned to the right.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    right: tuple[str, ...] = ()


@dataclass(frozen=True)
class SourceImage:
    """An image that is predicted.

    Args:
        name: as it was given: a path, or `image`.
        size: width and height in pixels, upright.
        preprocess: how it became the network's input.
        open: decodes it again in full, as a PIL image of mode RGB.
    """

    name: str
    size: tuple[int, int]
    preprocess: Preprocess
    open: Callable[[], Any]


class BaseTask(ABC):
    """What a task decides; stateless.

    Attributes:
        name: of the task, as backbones state it.
        columns: names of the metrics that `history.csv`, the model file and every epoch record.
        labels: by metric name, how the terminal calls the few that it shows after each epoch.
        reserved: names that a user's own metrics cannot take.
        loss_label: how the plan calls the task's own loss.
        schema_type: class of its schemas.
    """

    name: str
    columns: tuple[str, ...] = ("loss",)
    labels: Mapping[str, str] = {"loss": "loss"}
    reserved: tuple[str, ...] = ("loss", "images")
    loss_label: str = "loss"
    schema_type: type[Schema] = Schema

    # Data

    @abstractmethod
    def open_data(
        self, source: Any, *, seed: int = 0, val_fraction: float = 0.2, classes: int | None = None
    ) -> ImageData:
        """Index a data source and split it for training; its schema is part of the result.

        Args:
            source: what the user gave as `--data` or `data=`; None for a demonstration set.
            seed: decides which samples are held out where there is no validation split.
            val_fraction: the share that is held out there.
            classes: how many classes there are, for a source that does not name them.

        Raises:
            DataError: it cannot be trained on.
            UsageError: the task has no demonstration set, or no such kind of source.
        """

    @abstractmethod
    def open_split(self, source: Any, schema: Schema, split: str | None = None) -> Split:
        """Index one split of a data source, to evaluate a model on.

        Args:
            source: as for `open_data`.
            schema: the model's; targets are matched to it by name.
            split: which; None for `test` where there is one, else `val`, else all.

        Raises:
            DataError: there is no such split, or its targets are not the schema's.
        """

    def open_all(self, source: Any) -> AllImages:
        """Index every image of a source, whatever split it is in, to compute features of."""
        return open_all(source, self.open_data)

    def schema_from_dict(self, plain: Mapping[str, Any]) -> Schema:
        """Read a schema back from a model file.

        Raises:
            TypeError, ValueError: it is no schema of this task.
        """
        return self.schema_type.from_dict(plain)

    def published_schema(self, backbone: Backbone, weights: Weights) -> Schema:
        """Return the schema of published weights, to use a network as it is.

        Raises:
            UsageError: they come without a head, or their classes are not known; or the backbone
                is another task's, whose head they have.
        """
        if backbone.published.task != self.name:
            message = f"{backbone.id} {weights.tag} is published for {backbone.published.task}"
            raise UsageError(message, f"`zoo finetune {backbone.id}` gives it a head of your own")
        return Schema(published_classes(backbone, weights))

    def transform(self, preprocess: Preprocess) -> SampleTransform:
        """Return what makes tensors of an image and its target."""
        return SampleTransform(preprocess)

    def example_data(self, preprocess: Preprocess, count: int, seed: int) -> ImageData:
        """Return a few images of noise with targets, for the conformance kit.

        Args:
            preprocess: of a network; the images have its size and channels.
            count: of the `train` split; `val` has one or more of the same.
            seed: the same seed gives the same data.

        Raises:
            UsageError: the task has none, so that nothing of it can be checked.
        """
        hint = f"implement {type(self).__name__}.example_data"
        raise UsageError(f"the task {self.name} has no example data", hint)

    def check_augmentation(self, augment: Augmentation | None, views: int | None) -> None:
        """Refuse augmentations that targets cannot follow.

        Args:
            augment: that was asked for; None for none.
            views: how many augmented views of an image are to be cached; None where not asked for.

        Raises:
            UsageError: names what is refused.
        """
        return None

    # Network

    def read_output(
        self, output: Any, heads: Sequence[Head], training: bool, previous: int | None = None
    ) -> Outputs:
        """Read what a network returned: one vector for each sample, unless a task extends this.

        Args:
            output: of the network.
            heads: of its backbone.
            training: whether further heads count to the loss.
            previous: how many outputs the main head had before it was replaced; None where it was
                not. What still has as many is a head that was not replaced.

        Raises:
            BrokenBackbone: it is not what a network of this task returns.
        """
        if not isinstance(output, Tensor) or output.ndim != 2:
            shape = list(output.shape) if isinstance(output, Tensor) else type(output).__name__
            message = f"the network returned {shape}, and {self.name} reads [samples, outputs]"
            raise BrokenBackbone(message)
        return Outputs(output)

    def combine_heads(
        self, outputs: Mapping[str, tuple[Head, Tensor]], size: tuple[int, int], training: bool
    ) -> Outputs:
        """Make of the heads' outputs what `read_output` makes of the whole network's.

        The engine compares both on a batch before it trains heads on cached features.

        Args:
            outputs: each head with its output, by module path, the main head first.
            size: height and width of the network's input.
            training: whether further heads count to the loss.
        """
        (_, main), *others = outputs.values()
        auxiliary = tuple((output, head.loss_weight) for head, output in others)
        return Outputs(main, auxiliary if training else ())

    def head_outputs_differ(self, heads: Sequence[Head]) -> str | None:
        """Return why heads alone cannot give what the network gives; None where they may."""
        return None

    def check_outputs(self, outputs: Outputs) -> None:
        """Check the first training batch's outputs.

        Raises:
            BrokenBackbone: the loss could not train on them.
        """
        return None

    # Learning

    @abstractmethod
    def loss(
        self, outputs: Outputs, targets: Tensor, criterion: Criterion | None = None
    ) -> dict[str, Tensor]:
        """Return the parts of the loss of a batch by name; what is minimised is their sum.

        Args:
            outputs: of the network.
            targets: as collated, on the outputs' device.
            criterion: the user's own loss; None for the task's.

        Raises:
            UsageError: the user's loss fails.
        """

    def loss_name(self, criterion: Criterion | None) -> str:
        """Return how the plan calls what is minimised."""
        return self.loss_label if criterion is None else name_of(criterion)

    def count(self, targets: Tensor) -> int:
        """Return how many items the loss of a batch is the mean over: its samples, or pixels.

        A batch that is cut up has the gradient of the whole by this: each part counts by its share.
        """
        return len(targets)

    @abstractmethod
    def metric(
        self, schema: Schema, device: torch.device, further: UserMetrics | None = None
    ) -> Metric:
        """Return a new metric.

        Args:
            schema: of the data.
            device: of outputs and targets.
            further: the user's own metrics by name, called with all outputs and targets of a split.
        """

    def probe(self, criterion: Criterion | None) -> LogisticProbe | str:
        """Return how to solve for a linear head, or why it must be trained epoch by epoch."""
        return f"{self.name} has no direct solution for a head"

    def split_targets(self, split: Split, transform: SampleTransform) -> Tensor:
        """Return the targets of a whole split, `[samples, ...]`, to train on cached features.

        Args:
            split: whose samples do not change.
            transform: of the task.
        """
        return transform.collate(list(split.targets))

    def target_bytes(self, preprocess: Preprocess) -> int:
        """Return how many bytes `split_targets` takes for a sample."""
        return 8

    def chance(self, schema: Schema) -> float | None:
        """Return what guessing scores; None where that means nothing."""
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
        """Return a prediction for each image, as plain data that survives JSON.

        Args:
            outputs: of the network, `[images, ...]`.
            images: whose predictions they are.
            schema: of the model.
            top: how many alternatives to give, where there are alternatives.
            out: a folder for files that belong to predictions; None writes none.

        Returns:
            For each image a mapping with the key `predictions`, and others of the task.
        """

    def prediction_lines(self, answer: Mapping[str, Any]) -> list[str]:
        """Return what the terminal shows of one prediction: a line for each mapping in it."""
        return [
            "  ".join(f"{v:.5g}" if isinstance(v, float) else str(v) for v in prediction.values())
            for prediction in answer["predictions"]
        ]

    def metric_line(self, values: Mapping[str, Any], chance: float | None) -> str:
        """Return one line about a split, for the terminal."""
        numbers = [f"{name} {values[name]:.4f}" for name in self.columns]
        return f"{', '.join(numbers)} on {values['images']:,} images"

    def metric_table(self, values: Mapping[str, Any]) -> tuple[list[str], Table | None]:
        """Return what `zoo evaluate` shows: lines, and a table where there is more."""
        lines = [f"{'images':<8}{values['images']:,}"]
        return lines + [f"{name:<8}{values[name]:.4f}" for name in self.columns], None


def loss_parts(
    outputs: Outputs, targets: Tensor, loss: Callable[[Tensor, Tensor], Tensor]
) -> dict[str, Tensor]:
    """Return the loss of the main output, and that of each further one by its weight.

    Args:
        outputs: of the network.
        targets: of the batch.
        loss: of one output.
    """
    parts = {"main": loss(outputs.main, targets)}
    for number, (output, weight) in enumerate(outputs.auxiliary, start=1):
        parts[f"auxiliary{number}"] = weight * loss(output, targets)
    return parts


def published_classes(backbone: Backbone, weights: Weights) -> tuple[str, ...]:
    """Return the class names that published weights predict.

    Raises:
        UsageError: they come without a head, or their classes are not known.
        BrokenPlugin: the adapter's names do not fit its number of classes.
    """
    hint = f"`zoo finetune {backbone.id}` gives it a head of your own"
    if weights.features_only or not weights.num_classes or not backbone.heads:
        raise UsageError(f"{backbone.id} {weights.tag} is published without a head", hint)
    names = weights.classes
    if isinstance(names, str):
        named = resolve_target(names, f"weights {weights.tag!r} of {backbone.id}")
        with guard(f"{names}, the classes of {backbone.id}, cannot be read"):
            names = tuple(str(name) for name in (named() if callable(named) else named))
    if names is None:
        raise UsageError(f"{backbone.id} {weights.tag} is published without names of classes", hint)
    if len(names) != weights.num_classes:
        message = f"{backbone.id} {weights.tag} has {weights.num_classes} classes"
        raise UsageError(f"{message}, but its adapter names {len(names)}")
    return tuple(names)


def name_of(function: Any) -> str:
    """Return how a plan calls a loss: its name, and the settings that it shows."""
    named = getattr(function, "__qualname__", None)
    if named is not None:
        return str(named).rpartition("<locals>.")[2]
    inner = getattr(function, "func", None)  # of functools.partial
    shown = function.keywords if inner is not None else getattr(function, "__dict__", {})
    settings = ", ".join(
        f"{name}={value}"
        for name, value in shown.items()
        if isinstance(value, (int, float, str)) and name != "training" and not name.startswith("_")
    )
    owner = name_of(inner) if inner is not None else type(function).__name__
    return f"{owner}({settings})"


def load_task(task: Task) -> BaseTask:
    """Import and instantiate the class behind a registered task.

    Raises:
        BrokenPlugin: it cannot be imported, or is no task.
    """
    target = resolve_target(task.target, f"task {task.name!r}")
    with guard(f"task {task.name!r} cannot be instantiated"):
        loaded = target()
    if not isinstance(loaded, BaseTask):
        message = f"{task.target} gives a {type(loaded).__name__}, not a zoo.tasks.base.BaseTask"
        raise BrokenPlugin(
            message, f"it is registered by plugin {task.plugin or 'of unknown name'}"
        )
    return loaded
