"""Classification metrics: independent of the batch size, per class, confusion matrix."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from zoo.data.schema import Schema
from zoo.tasks.base import Outputs
from zoo.tasks.classification.metrics import ClassificationMetric

CPU = torch.device("cpu")


def metric_of(names):
    return ClassificationMetric(Schema(tuple(names)), CPU)


@pytest.mark.parametrize("size", [1, 3, 7, 50])
def test_metrics_are_independent_of_batch_size(size):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 8, generator=generator)
    labels = torch.randint(0, 8, (50,), generator=generator)
    metric = metric_of("abcdefgh")
    for first in range(0, 50, size):
        metric.update(Outputs(logits[first : first + size]), labels[first : first + size])
    values = metric.report()
    assert values["images"] == 50
    assert values["loss"] == pytest.approx(cross_entropy(logits, labels).item(), abs=1e-6)
    right = logits.argmax(1) == labels
    assert values["top1"] == int(right.sum()) / 50
    rank = (logits > logits.gather(1, labels[:, None])).sum(1)
    assert values["top5"] == int((rank < 5).sum()) / 50
    for index, name in enumerate("abcdefgh"):
        rows = labels == index
        assert values["per_class"][name]["images"] == int(rows.sum())
        assert values["per_class"][name]["top1"] == pytest.approx(right[rows].float().mean().item())
        row = torch.bincount(logits.argmax(1)[rows], minlength=8).tolist()
        assert values["confusion"][index] == row


def test_top1_weighs_images_not_batches():
    metric = metric_of("ab")
    metric.update(Outputs(torch.tensor([[1.0, 0.0]] * 24)), torch.zeros(24, dtype=torch.int64))
    metric.update(Outputs(torch.tensor([[1.0, 0.0]] * 1)), torch.ones(1, dtype=torch.int64))
    assert metric.compute()["top1"] == 0.96


def test_metrics_with_few_or_empty_classes():
    metric = metric_of("abc")
    metric.update(Outputs(torch.eye(3)[:2]), torch.tensor([0, 0]))
    values = metric.report()
    assert values["top5"] == 1.0
    assert values["per_class"]["b"] == {"images": 0, "top1": None}


def test_many_classes_omit_confusion_matrix():
    metric = metric_of(map(str, range(20_000)))
    metric.update(Outputs(torch.zeros(2, 20_000)), torch.tensor([0, 19_999]))
    values = metric.report()
    assert values["confusion"] is None
    assert (values["top1"], values["images"]) == (0.5, 2)
