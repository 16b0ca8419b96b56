"""timm's networks, their published weights in the networks' own terms, and their class names."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import timm
from timm.data import ImageNetInfo

from zoo.errors import WeightsError
from zoo.modelfile import read_checkpoint, read_tensors

if TYPE_CHECKING:
    from torch import Tensor, nn

    from zoo.spec import Backbone, Weights


def build(
    weights: str | None = None, *, name: str, tag: str | None = None, **kwargs: Any
) -> nn.Module:
    """Build a network as timm publishes it, with timm's own random weights.

    Args:
        weights: not used; zoo loads them.
        name: timm's name of the architecture.
        tag: the published weights that it is built for: the number of classes, the image size of
            a network of fixed size and its pooling follow from them. None for timm's default.
        kwargs: more arguments for `timm.create_model`.
    """
    return timm.create_model(_full_name(name, tag), pretrained=False, **kwargs)


def convert(path: Path, backbone: Backbone, weights: Weights) -> dict[str, Tensor]:
    """Read a published file into the network's own state dict, as timm does when it loads it.

    timm renames, reshapes and drops on the way, differently for every family, so it is left to
    do it; only the file is opened here, which keeps pickled code out of it in every version.

    Args:
        path: the published file: safetensors, a PyTorch checkpoint, or JAX's `.npz`.
        backbone: whose weights they are.
        weights: which of them.

    Returns:
        The state dict; tensors share memory only where the network ties them.

    Raises:
        WeightsError: it is not a file of these weights.
    """
    kwargs = {**backbone.kwargs, **weights.kwargs}
    full_name = _full_name(kwargs.pop("name"), kwargs.pop("tag", None))
    try:
        # What is given in an overlay comes before hub and address, so nothing is downloaded.
        overlay = _overlay(path)
        model = timm.create_model(
            full_name, pretrained=True, pretrained_cfg_overlay=overlay, **kwargs
        )
    except (OSError, MemoryError, WeightsError):
        raise
    except Exception as error:  # fed with something else, an unpickler stumbles over anything
        reason = str(error).strip().partition("\n")[0]
        raise WeightsError(
            f"{path.name} does not hold the weights {full_name}: {reason}",
            "remove the file so that it is downloaded again",
        ) from error
    return dict(model.state_dict())


def _full_name(name: str, tag: str | None) -> str:
    return f"{name}.{tag}" if tag else name


def _overlay(path: Path) -> dict[str, Any]:
    if path.suffix in (".npz", ".npy"):
        return {"file": str(path), "custom_load": True}
    whole = path.suffix == ".safetensors"
    state = read_tensors(path).tensors if whole else read_checkpoint(path)
    # timm takes an empty one for none at all, and would go on to the hub.
    if not state:
        raise ValueError("it holds no tensors by name")
    return {"state_dict": state}


def imagenet_1k() -> tuple[str, ...]:
    """Return the 1,000 classes of ImageNet-1k."""
    return _class_names("imagenet-1k")


def imagenet_12k() -> tuple[str, ...]:
    """Return the 11,821 classes of timm's ImageNet-12k."""
    return _class_names("imagenet-12k")


def imagenet_21k_goog() -> tuple[str, ...]:
    """Return the 21,843 classes of ImageNet-21k in Google's order."""
    return _class_names("imagenet-21k-goog")


def imagenet_21k_miil() -> tuple[str, ...]:
    """Return the 11,221 classes of ImageNet-21k-P."""
    return _class_names("imagenet-21k-miil")


def imagenet_22k() -> tuple[str, ...]:
    """Return the 21,841 classes of ImageNet-22k."""
    return _class_names("imagenet-22k")


def imagenet_22k_ms() -> tuple[str, ...]:
    """Return the 21,842 classes of ImageNet-22k in Microsoft's order, ImageNet-1k's first."""
    return _class_names("imagenet-22k-ms")


def _class_names(subset: str) -> tuple[str, ...]:
    """Name each class by its first word, where that is taken by all of them, or by its synset."""
    info = ImageNetInfo(subset)
    synsets = info.label_names()
    full = info.label_descriptions()
    short = [description.partition(",")[0].strip() for description in full]
    shorts, fulls = Counter(short), Counter(full)
    return tuple(
        first if shorts[first] == 1 else whole if fulls[whole] == 1 else f"{first} ({synset})"
        for first, whole, synset in zip(short, full, synsets, strict=True)
    )
