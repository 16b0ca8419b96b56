"""Conversion of the installed weights to timm's state dict, and their class names."""

from collections import Counter
from pathlib import Path

import torch
from timm.data import ImageNetInfo
from torch import Tensor

import zoo
from zoo.modelfile import read_checkpoint
from zoo_efficientnet_lite.model import build


def convert(path: Path, backbone: zoo.Backbone, weights: zoo.Weights) -> dict[str, Tensor]:
    """Convert an installed file to the state dict of the network.

    Both implementations register the same tensors in the same order under different names. Tensors
    are matched by position; the last part of the name (`weight`, `running_mean`, ...), the shape
    and the dtype must be equal.

    Args:
        path: the installed file.
        backbone: of the weights.
        weights: their description.

    Returns:
        The state dict under timm's names.

    Raises:
        WeightsError: the file does not contain weights of this network.
    """
    source = read_checkpoint(path)
    with torch.device("meta"):
        target = build(**backbone.kwargs).state_dict()
    if len(source) != len(target):
        raise zoo.WeightsError(
            f"{path.name} has {len(source)} tensors, {backbone.name} has {len(target)}"
        )
    for (source_name, tensor), (name, expected) in zip(source.items(), target.items(), strict=True):
        same = source_name.rpartition(".")[2] == name.rpartition(".")[2]
        if not same or tensor.shape != expected.shape or tensor.dtype != expected.dtype:
            raise zoo.WeightsError(
                f"{path.name}: {source_name} {tuple(tensor.shape)} does not match "
                f"{name} {tuple(expected.shape)} of {backbone.name}"
            )
    return dict(zip(target, source.values(), strict=True))


def imagenet_classes() -> tuple[str, ...]:
    """Return unique names of ImageNet's 1,000 classes: the first synonym if it is unique."""
    info = ImageNetInfo("imagenet-1k")
    descriptions = info.label_descriptions()
    first = [words.partition(",")[0] for words in descriptions]
    counts = Counter(first) + Counter(words for words in descriptions if "," in words)
    return tuple(
        word if counts[word] == 1 else words if counts[words] == 1 else f"{word} ({synset})"
        for word, words, synset in zip(first, descriptions, info.label_names(), strict=True)
    )
