"""Semantic segmentation: one class per pixel."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zoo.data.all_images import AllImages
from zoo.data.exportable import Placement
from zoo.data.schema import Schema
from zoo.data.split import ImageData, Split
from zoo.errors import UsageError
from zoo.options import Augmentation
from zoo.options.class_weights import ClassWeights
from zoo.sections import Number, Part, Section
from zoo.spec import Backbone, Head, Preprocess, Weights
from zoo.tasks.base import (
    BaseTask,
    Criterion,
    Direction,
    Evidence,
    Outputs,
    RunResults,
    SampleTransform,
    SourceImage,
    Table,
    UserMetrics,
)
from zoo.tasks.published import published_classes
from zoo.tasks.segmentation.data import is_mask_folder, open_all, open_data, open_split
from zoo.tasks.segmentation.evidence import report_data, sample_results
from zoo.tasks.segmentation.example import StripedSplit, example_data
from zoo.tasks.segmentation.exports import masks
from zoo.tasks.segmentation.masks import MaskSplit, pixel_counts
from zoo.tasks.segmentation.metrics import SegmentationMetric
from zoo.tasks.segmentation.outputs import (
    check_shape,
    combine_heads,
    read_output,
    segmentation_loss,
)
from zoo.tasks.segmentation.predict import predict
from zoo.tasks.segmentation.present import metric_line, metric_table, prediction_lines
from zoo.tasks.segmentation.report import curves, sections, split_numbers, summary_lines
from zoo.tasks.segmentation.schema import IGNORE_INDEX, SegmentationSchema
from zoo.tasks.segmentation.transform import MaskTransform
from zoo.tasks.weighted_loss import WeightedCrossEntropy, resolve_class_weights

NOT_JOINT = ("trivial", "erase")


class SemanticSegmentation(BaseTask):
    """One class per pixel: folders of images and masks, cross-entropy, mean IoU."""

    name = "semantic-segmentation"
    data_options = ("group_by",)
    decision = "pixels"
    columns = ("loss", "miou", "pixel_accuracy")
    directions: Mapping[str, Direction] = {"miou": "max", "pixel_accuracy": "max", "loss": "min"}
    labels: Mapping[str, str] = {"loss": "loss", "miou": "mIoU", "pixel_accuracy": "pixels"}
    class_labels: Mapping[str, str] = {"iou": "IoU"}
    reserved = ("loss", "miou", "pixel_accuracy", "images", "per_class")

    def open_data(
        self,
        source: Any,
        *,
        seed: int = 0,
        val_fraction: float = 0.2,
        classes: int | None = None,
        group_by: str | None = None,
    ) -> ImageData:
        """Index images and masks. See `BaseTask.open_data`."""
        return open_data(
            source, seed=seed, val_fraction=val_fraction, classes=classes, group_by=group_by
        )

    def open_split(self, source: Any, schema: Schema, split: str | None = None) -> Split:
        """Index one split, its classes matched by name. See `BaseTask.open_split`."""
        return open_split(source, schema.classes, split)

    def open_all(self, source: Any, *, classes: int | None = None, **options: Any) -> AllImages:
        """Index every image without its mask. See `BaseTask.open_all`."""
        return open_all(source) or super().open_all(source, classes=classes, **options)

    def recognizes(self, source: str | Path) -> bool:
        """Whether a path is a folder of images/ and masks/, or of splits that have both."""
        return is_mask_folder(source)

    def class_counts(self, split: Split, schema: Schema) -> dict[str, int]:
        """Return the number of images that have pixels of each class."""
        assert isinstance(split, (MaskSplit, StripedSplit))
        counts = [0] * len(schema.classes)
        for index in range(len(split)):
            for value, pixels in enumerate(split.mask(index).histogram()[: len(counts)]):
                counts[value] += pixels > 0
        return dict(zip(schema.classes, counts, strict=True))

    def schema_from_dict(self, plain: Mapping[str, Any]) -> SegmentationSchema:
        """Restore classes and palette from a model file."""
        return SegmentationSchema.from_dict(plain)

    def published_schema(self, backbone: Backbone, weights: Weights) -> SegmentationSchema:
        """Return the classes of published weights, in the colours of PASCAL VOC."""
        return SegmentationSchema(published_classes(backbone, weights))

    def transform(self, preprocess: Preprocess) -> MaskTransform:
        """Return the joint transform of image and mask."""
        return MaskTransform(preprocess)

    def check_augmentation(self, augment: Augmentation | None, views: int | None) -> None:
        """Refuse augmentations that cannot be applied to masks.

        Raises:
            UsageError: names the augmentation.
        """
        if views is not None:
            message = "--views: masks are cached for each image, not for each view"
            raise UsageError(message, "omit it to augment images in every epoch")
        for name in dict(augment.steps) if augment else ():
            if name in NOT_JOINT:
                effect = "draws its own geometry" if name == "trivial" else "blanks regions"
                message = f"--augment {name} {effect}, which cannot be applied to masks"
                raise UsageError(message, "use crop, flip, vflip, rotate and color")

    def example_data(self, preprocess: Preprocess, count: int, seed: int) -> ImageData:
        """Return images with striped masks. See `BaseTask.example_data`."""
        return example_data(preprocess, count, seed)

    def read_output(
        self, output: Any, heads: Sequence[Head], training: bool, previous: int | None = None
    ) -> Outputs:
        """Read logits `[images, classes, height, width]`. See `BaseTask.read_output`."""
        return read_output(output, heads, training, previous)

    def combine_heads(
        self, outputs: Mapping[str, tuple[Head, Tensor]], size: tuple[int, int], training: bool
    ) -> Outputs:
        """Sum main heads, and interpolate each output to the input's size."""
        return combine_heads(outputs, size, training)

    def check_outputs(self, outputs: Outputs) -> None:
        """Refuse logits without spatial extent. See `BaseTask.check_outputs`."""
        check_shape(outputs)

    def loss(
        self, outputs: Outputs, targets: Tensor, criterion: Criterion | None = None
    ) -> dict[str, Tensor]:
        """Return cross-entropy of the labelled pixels of the main and every auxiliary head."""
        return segmentation_loss(outputs, targets, criterion)

    def weighted_loss(
        self, data: ImageData, class_weights: ClassWeights | None, label_smoothing: float
    ) -> WeightedCrossEntropy:
        """Return cross-entropy per pixel with class weights and label smoothing."""
        classes, train = data.classes, data.splits["train"]

        def counts() -> list[int]:
            assert isinstance(train, (MaskSplit, StripedSplit))
            return pixel_counts(map(train.mask, range(len(train))), len(classes))

        weights = resolve_class_weights(class_weights, classes, counts)
        return WeightedCrossEntropy(weights, label_smoothing, IGNORE_INDEX)

    def loss_name(self, criterion: Criterion | None) -> str:
        """Return the name of the loss."""
        return "cross-entropy per pixel" if criterion is None else super().loss_name(criterion)

    def count(self, targets: Tensor) -> int:
        """Return the number of labelled pixels."""
        return int((targets != IGNORE_INDEX).sum())

    def metric(
        self, schema: Schema, device: torch.device, further: UserMetrics | None = None
    ) -> SegmentationMetric:
        """Return a metric of mean IoU and pixel accuracy."""
        return SegmentationMetric(schema, device, further)

    def probe(self, criterion: Criterion | None) -> str:
        """Return the reason against a probe."""
        return "segmentation heads are trained epoch by epoch"

    def split_targets(self, split: Split, transform: SampleTransform) -> Tensor:
        """Return the preprocessed masks of a split, `[images, height, width]` uint8."""
        if isinstance(split, (MaskSplit, StripedSplit)) and isinstance(transform, MaskTransform):
            return transform.collate([transform.mask(split.mask(n)) for n in range(len(split))])
        return super().split_targets(split, transform)

    def target_bytes(self, preprocess: Preprocess) -> int:
        """Return the size of a mask in bytes."""
        return preprocess.height * preprocess.width

    def predict(
        self,
        outputs: Outputs,
        images: Sequence[SourceImage],
        schema: Schema,
        *,
        top: int = 5,
        out: Path | None = None,
    ) -> list[dict[str, Any]]:
        """Return the share of pixels of each class, `[{class, fraction}]`, and the mask."""
        assert isinstance(schema, SegmentationSchema)
        return predict(outputs, images, schema, top, out)

    def sample_results(self, outputs: Outputs, targets: Tensor) -> dict[str, Tensor]:
        """Return the mean IoU and the pixel accuracy of each image."""
        return sample_results(outputs, targets)

    def report_data(self, evidence: Evidence) -> dict[str, Any]:
        """Return the IoU of each image, and drawings of the worst ones."""
        return report_data(evidence)

    def split_numbers(self, split: str, values: Mapping[str, Any]) -> tuple[Number, ...]:
        """Return mean IoU, pixel accuracy and loss."""
        return split_numbers(split, values)

    def learning_curves(self, run: RunResults) -> tuple[Part, ...]:
        """Return charts of loss, mean IoU and pixel accuracy by epoch."""
        return curves(run)

    def report_sections(self, run: RunResults) -> Iterator[Section]:
        """Yield metrics, IoU of each class, and the worst images with their masks."""
        return sections(run)

    def summary_lines(self, run: RunResults) -> Iterator[tuple[str, str]]:
        """Yield the weakest classes and what to try next."""
        return summary_lines(run)

    def export_outputs(self, outputs: Outputs, placement: Placement) -> dict[str, Tensor]:
        """Return the mask of each image in its own size."""
        return {"mask": masks(outputs.main, placement)}

    def export_decisions(self, exported: Mapping[str, Tensor]) -> Tensor:
        """Return the class of each pixel."""
        return exported["mask"]

    def prediction_lines(self, answer: Mapping[str, Any]) -> list[str]:
        """Return one line per class, and the paths of mask and overlay."""
        return prediction_lines(answer)

    def metric_line(self, values: Mapping[str, Any], chance: float | None) -> str:
        """Return mean IoU, pixel accuracy and loss as one line."""
        return metric_line(values)

    def metric_table(self, values: Mapping[str, Any]) -> tuple[list[str], Table | None]:
        """Return totals, and a table of classes."""
        return metric_table(values)
