"""Metrics are sums over images: no batch size can change them."""

import pytest
import torch
from torch.nn.functional import cross_entropy

from zoo.tasks.classification.metrics import ClassificationMetric

CPU = torch.device("cpu")


@pytest.mark.parametrize("size", [1, 3, 7, 50])
def test_no_batch_size_changes_them(size):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(50, 8, generator=generator)
    labels = torch.randint(0, 8, (50,), generator=generator)
    meter = ClassificationMetric(8, CPU)
    for first in range(0, 50, size):
        meter.update(logits[first : first + size], labels[first : first + size])
    said = meter.details(list("abcdefgh"))
    assert said["images"] == 50
    assert said["loss"] == pytest.approx(cross_entropy(logits, labels).item(), abs=1e-6)
    right = logits.argmax(1) == labels
    assert said["top1"] == int(right.sum()) / 50
    rank = (logits > logits.gather(1, labels[:, None])).sum(1)
    assert said["top5"] == int((rank < 5).sum()) / 50
    for place, name in enumerate("abcdefgh"):
        mine = labels == place
        assert said["per_class"][name]["images"] == int(mine.sum())
        assert said["per_class"][name]["top1"] == pytest.approx(right[mine].float().mean().item())
        row = torch.bincount(logits.argmax(1)[mine], minlength=8).tolist()
        assert said["confusion"][place] == row


def test_the_mean_of_batch_means_would_be_wrong():
    meter = ClassificationMetric(2, CPU)
    meter.update(torch.tensor([[1.0, 0.0]] * 24), torch.zeros(24, dtype=torch.int64))
    meter.update(torch.tensor([[1.0, 0.0]] * 1), torch.ones(1, dtype=torch.int64))
    assert meter.summary()["top1"] == 0.96


def test_few_classes_and_classes_without_images():
    meter = ClassificationMetric(3, CPU)
    meter.update(torch.eye(3)[:2], torch.tensor([0, 0]))
    said = meter.details(["a", "b", "c"])
    assert said["top5"] == 1.0
    assert said["per_class"]["b"] == {"images": 0, "top1": None}


def test_many_classes_take_little_memory():
    meter = ClassificationMetric(20_000, CPU)
    meter.update(torch.zeros(2, 20_000), torch.tensor([0, 19_999]))
    said = meter.details([str(n) for n in range(20_000)])
    assert said["confusion"] is None
    assert (said["top1"], said["images"]) == (0.5, 2)
