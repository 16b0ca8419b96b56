"""Build torchvision's networks, and read the library's metadata of their published weights.

`python -m zoo.builtin.torchvision_build > zoo/builtin/torchvision.json` renews the adapter's data
from the torchvision that is installed.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torchvision
from torchvision import models
from torchvision.models import segmentation
from torchvision.models.vision_transformer import interpolate_embeddings

from zoo.errors import WeightsError
from zoo.spec import IMAGENET_MEAN, IMAGENET_STD
from zoo.tensorfile import read_checkpoint

if TYPE_CHECKING:
    from torch import Tensor, nn

    from zoo.spec import Backbone, Weights

METRICS = {"pixel_acc": "pixel_accuracy"}

# A module's name cannot contain a dot any more: `denselayer1.norm.1.weight` became `norm1.weight`.
DENSENET_OLD = re.compile(r"(\.denselayer\d+\.(?:norm|conv))\.([12]\.)")


def build(weights: str | None = None, *, name: str, **kwargs: Any) -> nn.Module:
    """Build a network as torchvision does, with torchvision's own random weights.

    Args:
        weights: not used; zoo loads them.
        name: torchvision's name of the architecture.
        kwargs: more arguments for torchvision's builder.
    """
    network: nn.Module = models.get_model_builder(name)(weights=None, **kwargs)
    return network


def imagenet_classes() -> tuple[str, ...]:
    """Return the 1,000 class names as torchvision publishes them, in order."""
    return tuple(models.ResNet18_Weights.IMAGENET1K_V1.meta["categories"])


def voc_classes() -> tuple[str, ...]:
    """Return the 21 classes of PASCAL VOC as torchvision publishes them, the background first."""
    return tuple(segmentation.FCN_ResNet50_Weights.COCO_WITH_VOC_LABELS_V1.meta["categories"])


def convert(path: Path, backbone: Backbone, weights: Weights) -> dict[str, Tensor]:
    """Read a published file into the network's own state dict, as torchvision does on loading.

    Files from before a network was rewritten have other names (DenseNet, ViT) or lack counters of
    batch norm; and MNASNet refuses tensors without the version that only the `.pth` carries.

    Args:
        path: the published file.
        backbone: of the weights.
        weights: which of them.

    Returns:
        The state dict; for weights without a head, without the modules around it.

    Raises:
        WeightsError: it is not a file of these weights.
    """
    network = build(**{**backbone.kwargs, **weights.kwargs})
    try:
        published = read_checkpoint(path)
        # In place, since the versions are an attribute of this mapping.
        for old in list(published):
            published[DENSENET_OLD.sub(r"\1\2", old)] = published.pop(old)
        _fit_positions(network, published)
        network.load_state_dict(published)
    except (OSError, MemoryError, WeightsError):
        raise
    except Exception as error:  # reading an arbitrary file can raise anything
        reason = str(error).strip().partition("\n")[0]
        raise WeightsError(
            f"{path.name} does not contain {backbone.id} {weights.tag}: {reason}",
            "delete the file so that it is downloaded again",
        ) from error
    # Entries without valid values would stay in a head's frozen neighbours and spoil the features.
    left_out = (
        f"{backbone.heads[0].module_path.partition('.')[0]}." if weights.features_only else None
    )
    return {
        name: tensor
        for name, tensor in network.state_dict().items()
        if left_out is None or not name.startswith(left_out)
    }


def _fit_positions(network: nn.Module, published: dict[str, Tensor]) -> None:
    """Resample the positions of a transformer that is built for another image size."""
    name = "encoder.pos_embedding"
    if name in published and published[name].shape != network.state_dict()[name].shape:
        size, patch = network.image_size, network.patch_size
        published.update(interpolate_embeddings(size, patch, dict(published)))


def describe() -> dict[str, list[dict[str, Any]]]:
    """Return what the installed torchvision publishes: by network, its weights, default first."""
    described = {}
    modules = (models, segmentation)
    for name in sorted(name for each in modules for name in models.list_models(module=each)):
        published = models.get_model_weights(name)
        entries = sorted(published, key=lambda entry: entry is not published.DEFAULT)
        described[name] = [_describe(name, entry) for entry in entries]
    return described


def _describe(name: str, entry: models.WeightsEnum) -> dict[str, Any]:
    row: dict[str, Any] = {
        "tag": entry.name,
        "names": _names(entry),
        "url": entry.url,
        "license": entry.meta.get("license"),
        "min_size": max(entry.meta["min_size"]),
        "preprocess": _preprocess(entry),
        "metrics": _metrics(entry.meta["_metrics"]),
    }
    if kwargs := _kwargs(name, entry):
        row["kwargs"] = kwargs
    categories = entry.meta["categories"]
    if categories is None:
        row["features_only"] = True
    elif tuple(categories) == voc_classes():
        row |= {"num_classes": len(categories), "classes": voc_classes.__name__}
    return row


def _names(entry: models.WeightsEnum) -> list[str]:
    """Return what torchvision's documentation calls these weights, beside their tag."""
    enum = type(entry).__name__
    default = [f"{enum}.DEFAULT", "DEFAULT"] if entry is type(entry).DEFAULT else []
    return [f"{enum}.{entry.name}", *default]


def _preprocess(entry: models.WeightsEnum) -> dict[str, Any]:
    """Return the arguments of `Preprocess`, ImageNet's usual mean and std left out."""
    transforms = entry.transforms()
    (resize,) = transforms.resize_size
    values: dict[str, Any]
    if hasattr(transforms, "crop_size"):
        (size,) = transforms.crop_size
        values = {"size": size, "resize": resize}
    else:
        # For segmentation torchvision resizes the shorter side and cuts nothing off, so that no two
        # images are of a size. A batch has one size: of the ways to have it, `border` alone shows
        # every pixel, so that each has a prediction, and leaves proportions as they are. The longer
        # side is of that length instead.
        values = {"size": resize, "resize": resize, "crop": "border"}
    values["interpolation"] = transforms.interpolation.value
    if tuple(transforms.mean) != IMAGENET_MEAN or tuple(transforms.std) != IMAGENET_STD:
        values |= {"mean": list(transforms.mean), "std": list(transforms.std)}
    return values


def _metrics(published: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """Return `{"imagenet-1k/top1": 0.69758}` for `{"ImageNet-1K": {"acc@1": 69.758}}`."""
    return {
        f"{dataset.lower()}/{METRICS.get(name) or name.replace('acc@', 'top')}": round(share, 6)
        for dataset, values in published.items()
        for name, percent in values.items()
        if not math.isnan(share := percent / 100)
    }


def _kwargs(name: str, entry: models.WeightsEnum) -> dict[str, Any]:
    """Return what torchvision's builder sets for these weights and the state dict does not carry.

    The other arguments that it sets with weights do not depend on which: the number of classes,
    `aux_logits` and `init_weights` of these two, and MaxViT's input size, which has one value.
    """
    if name in ("googlenet", "inception_v3"):
        return {"transform_input": True}
    if name.startswith("vit_"):
        return {"image_size": entry.meta["min_size"][0]}
    return {}


def render(described: Mapping[str, list[dict[str, Any]]]) -> str:
    """Return the text of `torchvision.json`: one line for each set of weights."""
    blocks = []
    for name, rows in described.items():
        lines = ",\n".join(f"   {json.dumps(row)}" for row in rows)
        blocks.append(f"  {json.dumps(name)}: [\n{lines}\n  ]")
    version = json.dumps(torchvision.__version__.partition("+")[0])
    body = ",\n".join(blocks)
    return f'{{\n "torchvision": {version},\n "backbones": {{\n{body}\n }}\n}}\n'


if __name__ == "__main__":
    sys.stdout.write(render(describe()))
