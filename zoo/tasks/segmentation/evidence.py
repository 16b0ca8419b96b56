"""What is stored of a finished training of segmentation, for its report."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from zoo.data.thumbnails import encode
from zoo.tasks.base import Evidence, Outputs
from zoo.tasks.segmentation.predict import overlay
from zoo.tasks.segmentation.schema import IGNORE_INDEX, SegmentationSchema

# Images that the report shows, each with its mask and its prediction.
SHOWN = 12


def sample_results(outputs: Outputs, targets: Tensor) -> dict[str, Tensor]:
    """Return the mean IoU and the pixel accuracy of each image of a batch.

    The mean is over the classes that occur in the mask or the prediction. Both are 1 for an image
    without labelled pixels.

    Args:
        outputs: logits `[images, classes, height, width]`.
        targets: masks `[images, height, width]`.
    """
    count = outputs.main.shape[1]
    rows = []
    for logits, mask in zip(outputs.main, targets, strict=True):
        labelled = mask != IGNORE_INDEX
        true, predicted = mask[labelled].long(), logits.argmax(dim=0)[labelled]
        table = (true * count + predicted).bincount(minlength=count**2).reshape(count, count)
        shared = table.diagonal()
        union = table.sum(0) + table.sum(1) - shared
        ious = shared[union > 0] / union[union > 0]
        accuracy = shared.sum() / table.sum().clamp(min=1)
        one = accuracy.new_ones(())
        rows.append(torch.stack([ious.mean(), accuracy] if len(ious) else [one, one]))
    values = torch.stack(rows)
    return {"iou": values[:, 0], "accuracy": values[:, 1]}


def report_data(evidence: Evidence) -> dict[str, Any]:
    """Return the results of the images of each split, and drawings of the worst of one."""
    schema = evidence.data.schema
    assert isinstance(schema, SegmentationSchema)
    samples = {
        split: {
            "name": [evidence.name(split, index) for index in tensors["index"].tolist()],
            "iou": _rounded(tensors["iou"]),
            "accuracy": _rounded(tensors["accuracy"]),
        }
        for split, tensors in evidence.samples.items()
    }
    split = next((name for name in ("val", "test") if name in samples), None)
    data: dict[str, Any] = {"samples": samples, "palette": list(schema.palette), "worst": {}}
    if split is not None:
        data["worst"] = {"split": split, "shown": _worst(evidence, split, samples[split], schema)}
    return data


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 4) for value in values.tolist()]


def _worst(
    evidence: Evidence, split: str, samples: dict[str, Any], schema: SegmentationSchema
) -> list[dict[str, Any]]:
    """Return the images of the lowest IoU, with drawings of their masks and predictions."""
    order = sorted(range(len(samples["iou"])), key=lambda row: (samples["iou"][row], row))[:SHOWN]
    positions = evidence.samples[split]["index"].tolist()
    rows = {positions[row]: row for row in order}
    drawn = {}
    for index, pixels, logits, mask in evidence.outputs(split, list(rows)):
        image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())
        true, predicted = mask.numpy().astype(np.uint8), logits.argmax(dim=0).numpy()
        seen = np.where(true == IGNORE_INDEX, IGNORE_INDEX, predicted).astype(np.uint8)
        pair = (overlay(each, image, schema) for each in (true, seen))
        drawn[index] = [base64.b64encode(encode(each)).decode("ascii") for each in pair]
    return [{"row": row, "images": drawn[i]} for i, row in rows.items() if i in drawn]
