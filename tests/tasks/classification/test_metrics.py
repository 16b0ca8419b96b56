"""Classification metrics: independent of the batch size, per class, confusion matrix."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.dummy import DummyClassifier
from sklearn.metrics import balanced_accuracy_score
from torch.nn.functional import cross_entropy

from zoo.data.schema import Schema
from zoo.tasks.base import Outputs
from zoo.tasks.classification.metrics import ClassificationMetric
from zoo.tasks.classification.present import metric_line, metric_table
from zoo.tasks.classification.task import ImageClassification

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


def test_equal_logits_have_one_prediction_everywhere():
    classes = tuple(map(str, range(12)))
    logits = torch.zeros(3, 12)
    logits[1, [4, 9]] = 1.0
    logits[2, 11] = -1.0
    outputs, labels = Outputs(logits), torch.tensor([0, 4, 0])
    metric = metric_of(classes)
    metric.update(outputs, labels)
    values = metric.compute()
    assert (values["top1"], values["top5"]) == (1.0, 1.0)
    task = ImageClassification()
    recorded = task.sample_results(outputs, labels)
    assert (
        recorded["classes"][:, 0].tolist() == task.explained_outputs(outputs).tolist() == [0, 4, 0]
    )
    answers = task.predict(outputs, [], Schema(classes), top=3)
    assert [each["predictions"][0]["class"] for each in answers] == ["0", "4", "0"]
    probabilities = [[p["probability"] for p in each["predictions"]] for each in answers]
    assert probabilities == [sorted(each, reverse=True) for each in probabilities]


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


def uneven_metric(labels, predicted, classes=3):
    metric = metric_of("abcdefgh"[:classes])
    metric.update(Outputs(torch.eye(classes)[predicted]), torch.tensor(labels))
    return metric.report()


@pytest.mark.parametrize(
    ("labels", "predicted"),
    [
        ([0] * 9 + [1], [0] * 10),
        ([0, 0, 0, 1, 1, 2], [0, 0, 1, 1, 2, 2]),
        ([0, 0, 0, 0, 2], [0, 1, 0, 2, 2]),  # no image of class 1
    ],
)
def test_balanced_accuracy_and_chance_match_scikit_learn(labels, predicted):
    values = uneven_metric(labels, predicted)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a class that is predicted, but has no images
        assert values["balanced_accuracy"] == pytest.approx(
            balanced_accuracy_score(labels, predicted), abs=1e-12
        )
    guess = DummyClassifier(strategy="most_frequent").fit(np.zeros((len(labels), 1)), labels)
    assert values["chance"] == guess.score(np.zeros((len(labels), 1)), labels)


def test_never_predicted_classes_are_named():
    values = uneven_metric([0] * 9 + [1], [0] * 10)
    assert values["never_predicted"] == ["b"]  # `c` has no image in the split
    line = metric_line(values, values["chance"])
    assert "top-1 90.0 %, balanced 50.0 %," in line
    assert line.endswith("chance is 90.0 %; never predicted: b")
    lines, _ = metric_table(values)
    assert "balanced accuracy 50.0 %" in lines
    assert "chance  90.0 %" in lines
    assert "never predicted: b" in lines


def test_even_classes_show_no_balanced_accuracy():
    values = uneven_metric([0, 1, 2], [0, 1, 2])
    assert values["never_predicted"] == []
    assert metric_line(values, values["chance"]) == (
        "top-1 100.0 %, top-5 100.0 %, loss 0.5514 on 3 images; chance is 33.3 %"
    )


def test_many_never_predicted_classes_are_counted():
    values = uneven_metric(list(range(8)), [0] * 8, classes=8)
    assert metric_line(values, 1 / 8).endswith("never predicted: b, c, d, e, f and 2 more")


def test_metric_of_no_images_has_no_chance():
    values = metric_of("ab").report()
    assert (values["chance"], values["balanced_accuracy"]) == (None, 0.0)


def test_metric_table_without_confusion_matrix():
    names = [f"class {number}" for number in range(2001)]
    metric = metric_of(names)
    metric.update(Outputs(torch.zeros(3, 2001)), torch.tensor([0, 7, 2000]))
    values = metric.report()
    lines, table = metric_table(values)
    assert "never predicted: class 7, class 2000" in lines
    assert len(table.rows) == 2001
    assert table.header == ("", "CLASS", "IMAGES", "TOP-1")
