"""Weights as their publishers write them: a checkpoint of torch, and a backbone that names it."""

import io
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

import zoo

CONTENT: dict[str, torch.Tensor] = {"0.weight": torch.randn(3, 4), "0.bias": torch.zeros(3)}


def checkpoint(content: Mapping[str, torch.Tensor] = CONTENT) -> bytes:
    """Return the file that `torch.save` writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


def build(weights=None) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 3))


def leafnet(**source: Any) -> zoo.Backbone:
    """Return a backbone with the tensors of `CONTENT`, published at a source."""
    return zoo.Backbone(
        name="leafnet",
        builder="tests.published_weights:build",
        heads=(zoo.Head("0"),),
        preprocess=zoo.Preprocess(size=32),
        weights=(zoo.Weights("one", num_classes=3, **source),),
    )
