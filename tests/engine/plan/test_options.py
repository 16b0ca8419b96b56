"""Training options: losses, metrics, validation."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

import zoo
from zoo.engine.plan.options import Options
from zoo.models.build_options import BuildOptions
from zoo.options import Augmentation, HeadSpec, Policy, Schedule
from zoo.tasks.classification.task import ImageClassification
from zoo.tasks.user_functions import function_name


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


def test_loss_name_includes_its_settings():
    def inner(logits, labels):
        return cross_entropy(logits, labels)

    assert ImageClassification().loss_name(None) == "cross-entropy"
    assert function_name(focal) == "focal"
    assert function_name(inner) == "inner"
    assert function_name(partial(focal, gamma=3.0)) == "focal(gamma=3.0)"
    assert function_name(Weighted(2.5)) == "Weighted(gain=2.5)"
    assert function_name(Slots()) == "Slots()"
    smooth = function_name(nn.CrossEntropyLoss(label_smoothing=0.1))
    assert smooth.startswith("CrossEntropyLoss(")
    assert "label_smoothing=0.1" in smooth
    assert "training" not in smooth


@pytest.mark.parametrize("loss", [focal, Weighted(1.0), partial(focal, gamma=1.0), Slots(), None])
def test_loss_accepts_any_callable(loss):
    assert Options(loss=loss, metrics={"flags": focal}).loss is loss


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"loss": "focal"}, "the loss is a str; give a function of outputs and targets"),
        ({"loss": 0.1}, "the loss is a float"),
        ({"loss": nn.CrossEntropyLoss}, "the class CrossEntropyLoss; give an instance: Cross"),
        ({"metrics": {"f1": 0.5}}, "the metric 'f1' is a float"),
        ({"metrics": [focal]}, "metrics is a list"),
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
def test_invalid_options_raise_before_data_is_read(given, message):
    with pytest.raises(zoo.UsageError) as caught:
        Options(**given)
    assert message in str(caught.value)
    with pytest.raises(zoo.UsageError):
        zoo.plan("lite0", data="nowhere/", **given)


@pytest.mark.parametrize("name", ["top1", "confusion"])
def test_metric_name_of_the_task_is_reserved(name):
    with pytest.raises(zoo.UsageError, match=f"cannot be named '{name}'"):
        zoo.plan("lite0", data="nowhere/", metrics={name: focal})


def test_unknown_option_raises_type_error():
    with pytest.raises(TypeError, match="epoch"):
        zoo.plan("lite0", epoch=3)


def test_all_invalid_options_are_reported_together():
    with pytest.raises(zoo.UsageError) as caught:
        Options(
            epochs=0,
            seed=-1,
            schedule="cosin",
            train="head",
            recipe="all",
            momentum=0.9,
            metrics={"my f1": focal},
        )
    text = str(caught.value)
    assert text.startswith("6 options are wrong: ")
    for error in (
        "--epochs has 0 (give positive numbers)",
        "--seed is -1 (give a number from 0 to",
        "no schedule is named 'cosin' (did you mean cosine?)",
        "--train and --recipe exclude each other (give one of them)",
        "--momentum requires sgd (add --optimizer sgd)",
        "a metric cannot be named 'my f1'",
    ):
        assert error in text
    assert "\n" not in text


def test_invalid_option_reports_no_contradiction():
    with pytest.raises(zoo.UsageError) as caught:
        Options(optimizer="sdg", momentum=0.9)
    assert str(caught.value) == "no optimizer is named 'sdg'; did you mean sgd?"
    with pytest.raises(zoo.UsageError, match="--views requires augmented images; add --augment"):
        Options(views=2, augment="none")


def test_options_parse_text_into_values():
    options = Options(
        train="stages:2",
        epochs=3,
        lr=[1e-3],
        schedule="step",
        augment="flip",
        head="mlp:8",
        head_at="classifier[6]",
        in_chans=1,
        weights=Path("w.safetensors"),
    )
    assert options.train == Policy("stages", stages=2)
    assert options.epochs == (3,)
    assert options.lr == (1e-3,)
    assert options.schedule == Schedule("step")
    assert options.augment == Augmentation((("flip", 0.5),))
    assert options.build_options == BuildOptions(None, 1, HeadSpec((8,), at="classifier.6"))
    assert options.weights == "w.safetensors"
    assert replace(options) == options
    assert replace(options, seed=3).build_options == options.build_options
    assert Options().build_options == BuildOptions()
    assert Options(head=HeadSpec((8,), at="fc")).build_options.head.at == "fc"
    with pytest.raises(
        zoo.UsageError, match="--head names the module fc, but --head-at names classifier"
    ):
        Options(head=HeadSpec((8,), at="fc"), head_at="classifier")
