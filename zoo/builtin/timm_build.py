"""Build timm's networks, convert their published weights, and name their classes."""

from __future__ import annotations

import contextlib
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import timm
from timm.data import ImageNetInfo

from zoo.errors import WeightsError
from zoo.files import staging_folder
from zoo.formats import SAFETENSORS
from zoo.tensorfile import read_checkpoint, read_content, read_tensors

if TYPE_CHECKING:
    from torch import Tensor, nn

    from zoo.spec import Backbone, Weights


def build(
    weights: str | None = None, *, name: str, tag: str | None = None, **kwargs: Any
) -> nn.Module:
    """Build a network as timm does, with timm's random initialization.

    Args:
        weights: unused; zoo loads them.
        name: timm's name of the architecture.
        tag: of the published weights to build for, which determine the number of classes, a fixed
            image size and the pooling; None for timm's default.
        kwargs: passed to `timm.create_model`.
    """
    return timm.create_model(_full_name(name, tag), pretrained=False, **kwargs)


def convert(path: Path, backbone: Backbone, weights: Weights) -> dict[str, Tensor]:
    """Convert a published file to the network's state dict, as timm does when it loads it.

    timm renames, reshapes and drops tensors differently for each family, so the conversion is
    timm's; only the file is opened here, so that no version of timm unpickles code.

    Args:
        path: the published file: safetensors, a PyTorch checkpoint, or JAX's `.npz`.
        backbone: of the weights.
        weights: to convert.

    Returns:
        The state dict; tensors share memory only where the network ties them.

    Raises:
        WeightsError: it does not contain these weights.
    """
    kwargs = {**backbone.kwargs, **weights.kwargs}
    full_name = _full_name(kwargs.pop("name"), kwargs.pop("tag", None))
    try:
        # A file or state dict in the overlay takes precedence over hub and url: no download.
        with _overlay(path) as overlay:
            model = timm.create_model(
                full_name, pretrained=True, pretrained_cfg_overlay=overlay, **kwargs
            )
    except (OSError, MemoryError, WeightsError):
        raise
    except Exception as error:  # reading an arbitrary file can raise anything
        reason = str(error).strip().partition("\n")[0]
        raise WeightsError(
            f"{path.name} does not contain the weights {full_name}: {reason}",
            "delete the file so that it is downloaded again",
        ) from error
    return dict(model.state_dict())


def _full_name(name: str, tag: str | None) -> str:
    return f"{name}.{tag}" if tag else name


@contextlib.contextmanager
def _overlay(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the `pretrained_cfg_overlay` of weights: a state dict, or the JAX file for timm."""
    if path.suffix in (".npz", ".npy"):
        # A copy of the bytes whose digest was compared, since timm opens the path again.
        with staging_folder(Path(tempfile.gettempdir())) as folder:
            folder.write(path.name, read_content(path).data)
            yield {"file": str(folder.path / path.name), "custom_load": True}
        return
    safetensors = read_content(path).kind is SAFETENSORS
    state = read_tensors(path).tensors if safetensors else read_checkpoint(path)
    # timm treats an empty state dict as missing, and would download from the hub.
    if not state:
        raise ValueError("it contains no named tensors")
    yield {"state_dict": state}


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
    """Return each class's first lemma, where not unique all lemmas, else lemma and synset."""
    info = ImageNetInfo(subset)
    synsets = info.label_names()
    descriptions = info.label_descriptions()
    lemmas = [description.partition(",")[0].strip() for description in descriptions]
    lemma_counts, description_counts = Counter(lemmas), Counter(descriptions)
    return tuple(
        lemma
        if lemma_counts[lemma] == 1
        else description
        if description_counts[description] == 1
        else f"{lemma} ({synset})"
        for lemma, description, synset in zip(lemmas, descriptions, synsets, strict=True)
    )
