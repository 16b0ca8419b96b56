"""The installed weights in timm's terms, and the names of their classes."""

from collections import Counter
from pathlib import Path

import torch
from timm.data import ImageNetInfo
from torch import Tensor

import zoo
from zoo.modelfile import read_checkpoint
from zoo_efficientnet_lite.model import build


def convert(path: Path, backbone: zoo.Backbone, weights: zoo.Weights) -> dict[str, Tensor]:
    """Read an installed file into the network's own state dict.

    Both implementations register the same tensors in the same order under names of their own, so
    they are matched by position; what a tensor is (`weight`, `running_mean`, ...) and its shape
    must agree as well.

    Args:
        path: the installed file.
        backbone: whose weights they are.
        weights: which of them.

    Returns:
        The network's own state dict.

    Raises:
        WeightsError: the file does not hold this network's weights.
    """
    theirs = read_checkpoint(path)
    with torch.device("meta"):
        ours = build(**backbone.kwargs).state_dict()
    if len(theirs) != len(ours):
        raise zoo.WeightsError(
            f"{path.name} holds {len(theirs)} tensors and {backbone.name} has {len(ours)}"
        )
    for (their_name, tensor), (name, wanted) in zip(theirs.items(), ours.items(), strict=True):
        same = their_name.rpartition(".")[2] == name.rpartition(".")[2]
        if not same or tensor.shape != wanted.shape or tensor.dtype != wanted.dtype:
            raise zoo.WeightsError(
                f"{path.name}: {their_name} {tuple(tensor.shape)} is not {backbone.name}'s "
                f"{name} {tuple(wanted.shape)}"
            )
    return dict(zip(ours, theirs.values(), strict=True))


def imagenet_classes() -> tuple[str, ...]:
    """Return the names of ImageNet's 1,000 classes: the first word, or more where it is taken."""
    info = ImageNetInfo("imagenet-1k")
    described = info.label_descriptions()
    first = [words.partition(",")[0] for words in described]
    taken = Counter(first) + Counter(words for words in described if "," in words)
    return tuple(
        word if taken[word] == 1 else words if taken[words] == 1 else f"{word} ({synset})"
        for word, words, synset in zip(first, described, info.label_names(), strict=True)
    )
