"""Segmentation metrics against independent implementations."""

import numpy as np
import pytest
import torch
from sklearn.metrics import jaccard_score, log_loss

from zoo.errors import UsageError
from zoo.tasks.base import Outputs
from zoo.tasks.segmentation.metrics import SegmentationMetric
from zoo.tasks.segmentation.schema import SegmentationSchema

CPU = torch.device("cpu")
SCHEMA = SegmentationSchema(("sky", "road", "tree", "car", "boat"))
COUNT = len(SCHEMA.classes)


def batch(images: int = 6, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logits and masks in which the last class is absent from both."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, COUNT, 7, 9, generator=generator)
    logits[:, 4] = -20
    masks = torch.randint(4, (images, 7, 9), generator=generator)
    masks[torch.rand(masks.shape, generator=generator) < 0.3] = 255
    return logits, masks.to(torch.uint8)


def metric_of(logits: torch.Tensor, masks: torch.Tensor, cuts=(2,), **given) -> SegmentationMetric:
    metric = SegmentationMetric(SCHEMA, CPU, **given)
    for part, target in zip(logits.tensor_split(cuts), masks.tensor_split(cuts), strict=True):
        metric.update(Outputs(part), target)
    return metric


def test_metrics_equal_pixel_loop():
    logits, masks = batch()
    predicted = logits.argmax(1)
    intersection, union, right, labelled = [0] * COUNT, [0] * COUNT, 0, 0
    for p, t in zip(predicted.ravel().tolist(), masks.ravel().tolist(), strict=True):
        if t == 255:
            continue
        labelled += 1
        right += p == t
        for index in range(COUNT):
            intersection[index] += p == t == index
            union[index] += index in (p, t)
    ious = [a / b for a, b in zip(intersection, union, strict=True) if b]
    report = metric_of(logits, masks).report()
    assert len(ious) == 4
    assert report["miou"] == pytest.approx(sum(ious) / 4, abs=1e-12)
    assert report["pixel_accuracy"] == pytest.approx(right / labelled, abs=1e-12)
    assert report["per_class"]["boat"] == {"iou": None, "pixels": 0}
    assert report["per_class"]["road"]["iou"] == pytest.approx(ious[1], abs=1e-12)
    assert sum(each["pixels"] for each in report["per_class"].values()) == labelled
    assert report["images"] == 6


def test_metrics_equal_scikit_learn():
    logits, masks = batch(seed=1)
    known = masks != 255
    true, predicted = masks[known].numpy(), logits.argmax(1)[known].numpy()
    values = metric_of(logits, masks).compute()
    assert values["miou"] == pytest.approx(jaccard_score(true, predicted, average="macro"))
    probability = logits.double().softmax(1).permute(0, 2, 3, 1)[known].numpy()
    expected = log_loss(true, probability, labels=list(range(COUNT)))
    assert values["loss"] == pytest.approx(expected, rel=1e-6)


def test_metrics_are_independent_of_batches_and_merging():
    logits, masks = batch()
    whole = metric_of(logits, masks, cuts=())
    merged = metric_of(logits[:1], masks[:1])
    merged.merge(metric_of(logits[1:], masks[1:], cuts=(1, 4)))
    assert torch.equal(whole.sums["confusion"], merged.sums["confusion"])
    assert whole.sums["confusion"].dtype == torch.int64
    assert merged.compute() == pytest.approx(whole.compute(), abs=1e-12)
    restored = SegmentationMetric(SCHEMA, CPU)
    restored.load_state_dict(whole.state_dict())
    assert restored.report() == whole.report()


def test_miou_counts_predicted_only_class_as_zero():
    logits = torch.zeros(1, COUNT, 1, 2)
    logits[0, 4, 0, 0], logits[0, 1, 0, 1] = 5, 5
    values = metric_of(logits, torch.tensor([[[1, 1]]], dtype=torch.uint8), cuts=()).compute()
    assert values["miou"] == pytest.approx((1 / 2 + 0) / 2)


def test_metrics_without_labelled_pixels_are_zero():
    logits, masks = batch()
    values = metric_of(logits, torch.full_like(masks, 255)).compute()
    assert values == {"loss": 0, "miou": 0, "pixel_accuracy": 0, "images": 6}


def test_score_ranks_by_miou_then_loss():
    metric = SegmentationMetric(SCHEMA, CPU)
    rows = [{"miou": 0.5, "loss": 2.0}, {"miou": 0.5, "loss": 1.0}, {"miou": 0.4, "loss": 0.1}]
    assert max(rows, key=metric.score) == rows[1]


def test_user_metrics_receive_all_masks():
    logits, masks = batch()
    further = {
        "boundary": lambda p, t: float((p == t).float().mean()),
        "shape": lambda p, t: p.ndim,
    }
    values = metric_of(logits, masks, further=further).compute()
    expected = np.mean(logits.argmax(1).numpy() == masks.numpy())
    assert values["boundary"] == pytest.approx(expected)
    assert values["shape"] == 3
    with pytest.raises(UsageError, match="the metric bad is nan"):
        metric_of(logits, masks, further={"bad": lambda p, t: float("nan")}).compute()
