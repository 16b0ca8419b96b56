"""What may be asked of a training, in Python: losses, metrics, and their names in the plan."""

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import zoo
from zoo.engine.plan.options import Options, name_of


def focal(logits, labels, gamma=2.0):
    entropy = cross_entropy(logits, labels, reduction="none")
    return ((1 - torch.exp(-entropy)) ** gamma * entropy).mean()


class Weighted(nn.Module):
    def __init__(self, gain):
        super().__init__()
        self.gain = gain

    def forward(self, logits, labels):
        return self.gain * cross_entropy(logits, labels)


class Slots:
    __slots__ = ()

    def __call__(self, logits, labels):
        return cross_entropy(logits, labels)


def test_a_loss_is_called_by_its_name_and_settings():
    def inner(logits, labels):
        return cross_entropy(logits, labels)

    assert name_of(None) == "cross-entropy"
    assert name_of(focal) == "focal"
    assert name_of(inner) == "inner"
    assert name_of(partial(focal, gamma=3.0)) == "focal(gamma=3.0)"
    assert name_of(Weighted(2.5)) == "Weighted(gain=2.5)"
    assert name_of(Slots()) == "Slots()"
    smooth = name_of(nn.CrossEntropyLoss(label_smoothing=0.1))
    assert smooth.startswith("CrossEntropyLoss(")
    assert "label_smoothing=0.1" in smooth
    assert "training" not in smooth


@pytest.mark.parametrize("loss", [focal, Weighted(1.0), partial(focal, gamma=1.0), Slots(), None])
def test_whatever_can_be_called_is_a_loss(loss):
    assert Options(loss=loss, metrics={"flags": focal}).loss is loss


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"loss": "focal"}, "the loss is a str; give a function of logits and labels"),
        ({"loss": 0.1}, "the loss is a float"),
        ({"loss": nn.CrossEntropyLoss}, "is the class CrossEntropyLoss; give CrossEntropyLoss("),
        ({"metrics": {"f1": 0.5}}, "the metric 'f1' is a float"),
        ({"metrics": [focal]}, "metrics is a list"),
        ({"metrics": {"top1": focal}}, "cannot be named 'top1'"),
        ({"metrics": {"confusion": focal}}, "cannot be named 'confusion'"),
        ({"metrics": {"my f1": focal}}, "cannot be named 'my f1'"),
        ({"metrics": {1: focal}}, "cannot be named 1"),
        ({"epochs": "3"}, "--epochs has '3'; give positive numbers"),
        ({"epochs": True}, "--epochs has True"),
        ({"input_size": "96"}, "--input-size is '96'"),
        ({"in_chans": 0}, "--in-chans is 0"),
        ({"lr": float("nan")}, "--lr has nan"),
        ({"head": "mlp"}, "is not a head"),
        ({"augment": "flop"}, "did you mean flip"),
    ],
)
def test_what_means_nothing_is_refused_before_anything_is_read(given, said):
    with pytest.raises(zoo.UsageError) as caught:
        Options(**given)
    assert said in str(caught.value)
    with pytest.raises(zoo.UsageError):
        zoo.plan("lite0", data="nowhere/", **given)


def test_an_option_that_does_not_exist():
    with pytest.raises(TypeError, match="epoch"):
        zoo.plan("lite0", epoch=3)
