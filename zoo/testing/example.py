"""A tiny backbone, with which the checks of observers train."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from zoo.hookspecs import hookimpl
from zoo.spec import Backbone, Head, Preprocess

if TYPE_CHECKING:
    from torch import nn


@hookimpl
def zoo_register_backbones() -> Iterator[Backbone]:
    """Describe the backbone."""
    head, preprocess = Head("5", in_features=8), Preprocess(size=32)
    yield Backbone("tiny", f"{__name__}:build", heads=(head,), preprocess=preprocess)


def build(weights: None = None) -> nn.Module:
    """Build the network, for 10 classes."""
    from torch import nn

    first = nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU()
    return nn.Sequential(*first, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))
