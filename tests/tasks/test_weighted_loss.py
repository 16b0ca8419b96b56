"""Class weights and label smoothing: as scikit-learn and torch compute them, for every task."""

import numpy as np
import pytest
import torch
from sklearn.utils.class_weight import compute_class_weight
from torch.nn.functional import cross_entropy

import zoo
from zoo.options.class_weights import ClassWeights
from zoo.tasks.base import Outputs
from zoo.tasks.classification.task import ImageClassification
from zoo.tasks.weighted_loss import WeightedCrossEntropy, balanced, resolve_class_weights

CLASSES = ("a, b", "Pájaro", "c=d")


@pytest.mark.parametrize(
    ("given", "weights"),
    [
        ("Pájaro=2", [1, 2, 1]),
        ("Pa\u0301jaro=2", [1, 2, 1]),  # accents as macOS writes them
        ('"a, b=0.5",c=d=3', [0.5, 1, 3]),
        ({"c=d": 4, "a, b": np.float32(0.25)}, [0.25, 1, 4]),
    ],
)
def test_class_weights_by_name(given, weights):
    read = ClassWeights.read(given)
    assert resolve_class_weights(read, CLASSES, pytest.fail) == weights


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("", "is empty"),
        ("bird", "'bird' is not NAME=W"),
        ("=2", "'=2' is not NAME=W"),
        ("bird=x", "gives 'bird' the weight 'x'"),
        ("bird=0", "gives 'bird' the weight '0'"),
        ("bird=-1", "the weight '-1'"),
        ("bird=inf", "the weight 'inf'"),
        ({"bird": None}, "the weight None"),
        ("bird=1,bird=2", "names 'bird' twice"),
        (3, "is a int"),
    ],
)
def test_malformed_class_weights_are_refused(given, message):
    with pytest.raises(zoo.UsageError) as caught:
        ClassWeights.read(given)
    assert message in caught.value.message
    assert "balanced, or NAME=W" in caught.value.hint


def test_unknown_classes_are_refused_together():
    given = ClassWeights.read("Pajaro=2,dog=1")
    with pytest.raises(zoo.UsageError) as caught:
        resolve_class_weights(given, CLASSES, pytest.fail)
    assert "names 'Pajaro'" in str(caught.value)
    assert "names 'dog'" in str(caught.value)
    assert "did you mean Pájaro?" in str(caught.value)


def test_balanced_weights_match_scikit_learn():
    labels = np.array([0] * 9 + [1] + [3] * 5)
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=labels)
    weights = balanced(np.bincount(labels, minlength=4).tolist())
    assert [weights[0], weights[1], weights[3]] == pytest.approx(expected.tolist())
    assert weights[2] == 1


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("weights", [None, [0.5, 2.0, 5.0]])
def test_weighted_loss_matches_torch_in_micro_batches(weights, smoothing):
    torch.manual_seed(0)
    logits, labels = torch.randn(11, 3), torch.tensor([0] * 7 + [1] * 3 + [2])
    task, criterion = ImageClassification(), WeightedCrossEntropy(weights, smoothing)
    given = None if weights is None else torch.tensor(weights)
    expected = cross_entropy(logits, labels, given, label_smoothing=smoothing)
    outputs = Outputs(logits.requires_grad_())
    assert torch.equal(task.loss(outputs, labels, criterion)["main"], expected)
    total = task.loss_divisor(labels, criterion)
    assert total == (11 if weights is None else 0.5 * 7 + 2 * 3 + 5)
    parts = [(0, 4), (4, 9), (9, 11)]
    mean = sum(
        task.loss(Outputs(logits[a:b]), labels[a:b], criterion)["main"].item()
        * task.loss_divisor(labels[a:b], criterion)
        / total
        for a, b in parts
    )
    assert mean == pytest.approx(expected.item(), rel=1e-6)


def test_weights_count_labelled_pixels_only():
    criterion = WeightedCrossEntropy([1.0, 3.0], 0.0, ignore_index=255)
    masks = torch.tensor([[[0, 1], [1, 255]]], dtype=torch.uint8)
    assert criterion.total_weight(masks) == 7
