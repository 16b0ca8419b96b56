"""Stages of small networks; those of the libraries' are in `test_freeze`."""

from collections import OrderedDict

from torch import nn

from zoo.models.stages import find_stages


def network(**parts: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(parts))


def conv() -> nn.Conv2d:
    return nn.Conv2d(4, 4, 3)


def test_layers_of_auxiliary_classifier_are_in_the_first_stage():
    auxiliary = network(conv=conv(), fc=nn.Linear(4, 7))
    model = network(stem=conv(), first=conv(), aux=auxiliary, last=conv(), fc=nn.Linear(4, 7))
    assert find_stages(model, ["fc", "aux.fc"]) == [["aux.conv", "stem"], ["first"], ["last"]]


def test_modules_without_matrices_join_the_stage_before():
    model = network(
        norm=nn.BatchNorm2d(4),
        stem=conv(),
        act=nn.ReLU(),
        body=conv(),
        last_norm=nn.BatchNorm2d(4),
        pool=nn.AdaptiveAvgPool2d(1),
        fc=nn.Linear(4, 7),
    )
    stages = [["norm", "stem", "act"], ["body", "last_norm", "pool"]]
    assert find_stages(model, ["fc"]) == stages


def test_container_of_most_parameters_is_expanded():
    blocks = network(a=network(x=conv(), y=conv()), b=network(x=conv(), y=conv()))
    parts = {"stem": conv(), "blocks": blocks, "late": conv()}
    # Beside two other modules with weights, and not beside three.
    few = network(**parts, fc=nn.Linear(4, 7))
    assert find_stages(few, ["fc"]) == [["stem"], ["blocks.a"], ["blocks.b"], ["late"]]
    many = network(**parts, last=conv(), fc=nn.Linear(4, 7))
    assert find_stages(many, ["fc"]) == [["stem"], ["blocks"], ["late"], ["last"]]


def test_head_in_container_leaves_its_other_layers_in_stages():
    classifier = network(hidden=nn.Linear(4, 4), drop=nn.Dropout(), last=nn.Linear(4, 7))
    model = network(features=network(a=conv(), b=conv()), classifier=classifier)
    assert find_stages(model, ["classifier.last"]) == [
        ["features.a"],
        ["features.b"],
        ["classifier.hidden", "classifier.drop"],
    ]
